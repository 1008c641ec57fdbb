// Marks what is cut at an edge and scrolls sideways, and draws interactive figures in the colours of the theme.
const SCROLLING = "article :is(pre, .output, .pst-scrollable-table-container, mjx-container[display])";

function mark(box) {
    if (box.nodeType !== Node.ELEMENT_NODE || !box.matches(SCROLLING)) return;
    const hidden = box.scrollWidth - box.clientWidth;
    box.classList.toggle("cut-left", box.scrollLeft > 1);
    box.classList.toggle("cut-right", hidden - box.scrollLeft > 1);
}

function paint() {
    const style = getComputedStyle(document.documentElement);
    const theme = (name) => style.getPropertyValue(`--pst-color-${name}`).trim();
    const colours = {"font.color": theme("text-base"), paper_bgcolor: "transparent", plot_bgcolor: "transparent"};
    const ofScene = {"scene.bgcolor": "transparent"};
    for (const axis of ["xaxis", "yaxis", "zaxis"]) ofScene[`scene.${axis}.gridcolor`] = theme("border");
    for (const figure of document.querySelectorAll(".plotly-graph-div"))
        Plotly.relayout(figure, figure.layout.scene ? {...colours, ...ofScene} : colours);
}

// Plotly's sliders follow the mouse alone; this lets the arrow keys, Home and End move them.
function listen(figure) {
    const slider = () => figure.layout.sliders[0];
    const shown = () => slider().active ?? 0;
    const tell = () => {
        figure.ariaValueNow = shown();
        figure.ariaValueText = slider().steps[shown()].label;
    };
    const last = slider().steps.length - 1;
    Object.assign(figure, {tabIndex: 0, role: "slider", ariaLabel: "Step shown", ariaValueMin: 0, ariaValueMax: last});
    tell();
    figure.on("plotly_sliderchange", tell);
    figure.addEventListener("keydown", async (event) => {
        const [back, on] = [shown() - 1, shown() + 1];
        const to = {ArrowLeft: back, ArrowDown: back, ArrowRight: on, ArrowUp: on, Home: 0, End: last}[event.key];
        if (to === undefined) return;
        event.preventDefault();
        const active = Math.min(Math.max(to, 0), last);
        const {method, args} = slider().steps[active];
        await Plotly.relayout(figure, {"sliders[0].active": active});
        await Plotly[method](figure, ...args);
        tell();
    });
}

document.addEventListener("DOMContentLoaded", () => {
    const all = () => document.querySelectorAll(SCROLLING).forEach(mark);
    // The article changes its size with the screen, and when a fold opens, a font arrives or a formula is drawn.
    new ResizeObserver(all).observe(document.querySelector("article"));
    document.addEventListener("scroll", (event) => mark(event.target), {capture: true, passive: true});
    paint();
    [...document.querySelectorAll(".plotly-graph-div")].filter((figure) => figure.layout.sliders).forEach(listen);
    new MutationObserver(paint).observe(document.documentElement, {attributeFilter: ["data-theme"]});
});
