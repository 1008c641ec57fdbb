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

document.addEventListener("DOMContentLoaded", () => {
    const all = () => document.querySelectorAll(SCROLLING).forEach(mark);
    // The article changes its size with the screen, and when a fold opens, a font arrives or a formula is drawn.
    new ResizeObserver(all).observe(document.querySelector("article"));
    document.addEventListener("scroll", (event) => mark(event.target), {capture: true, passive: true});
    paint();
    new MutationObserver(paint).observe(document.documentElement, {attributeFilter: ["data-theme"]});
});
