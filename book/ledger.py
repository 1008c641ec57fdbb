"""Fidelity ledger: what the paper states, where we do it, which test and which cell show it, and where we depart from it.

Generated into a page; :func:`faults` finds every entry whose symbol, value, test or cell does not exist any more.
"""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Statement:
    """One statement of the paper."""

    where: str  #: Equation, section, table.
    says: str  #: What it states.
    symbol: str  #: Full name of ours; of a field of a dataclass too.
    test: str  #: ``FILE::FUNCTION`` below ``tests/``.
    cell: tuple[str, str]  #: A notebook and a piece of one of its code cells.
    #: What the symbol must be: a constant, or the default of a field. ``None`` where it is a function or a class.
    value: object = None
    departs: str = ""  #: How ours differs, or what the paper left for us to choose.
    #: Full names and values of what ``departs`` and ``says`` tell of further symbols; a dictionary's keys are parts of a name.
    also: dict[str, object] = field(default_factory=dict)


OPTIONS = "voxuda.methods.options.VoxUDAOptions"
SCALES = "voxuda.training.config.SCALES"

STATEMENTS = [
    Statement("IV-A", "Source molecules 1BXN, 1F1B, 1YG6", "voxuda.simulation.names.PAPER_SOURCE_SETS",
              "simulation/test_molecules.py::test_stand_ins_are_embedded", ("02_subtomogram", "molecules.available()"),
              {"table1": ("1bxn", "1f1b", "1yg6"), "table2": ("2byu", "2h12", "2ldb")},
              "where coordinates could not be embedded, named stand-ins of the same size class take their place"),
    Statement("IV-A", "500 samples at each SNR, 0.03 and 0.05, so 3,000 a source set", "voxuda.training.config.SCALES",
              "training/test_run_folder.py::test_paper_scale_is_the_papers", ("10_what_closes_the_gap", 'SCALES["paper"]'),
              None, "at the scales smoke and laptop fewer, and at ten times the SNR",
              {f"{SCALES}.paper.per_source": 500, f"{SCALES}.paper.source_snr": (0.03, 0.05),
               f"{SCALES}.desk.per_source": 500, f"{SCALES}.desk.source_snr": (0.03, 0.05),
               f"{SCALES}.laptop.per_source": 48, f"{SCALES}.laptop.source_snr": (0.3, 0.5),
               f"{SCALES}.smoke.source_snr": (0.3, 0.5)}),
    Statement("Fig 1", "A mask is the density above 300", "voxuda.simulation.molecules.MASK_THRESHOLD",
              "simulation/test_quick.py::test_same_seed_same_samples_and_labels_follow_the_density",
              ("02_subtomogram", "density"), 300.0, "read as daltons per cubic nanometre"),
    Statement("IV-A", "The target is Poly-GA, real subtomograms: 901 ribosomes, 66 26S proteasomes, 66 TRiC",
              "voxuda.simulation.quick.simulate_target",
              "simulation/test_quick.py::test_target_varies_from_sample_to_sample", ("02_subtomogram", "simulate_target"),
              None, "not part of this repository: the target is simulated, as many of each of the three, or a folder of yours"),
    Statement("Eqs 2 to 4", "DFT, high-pass filter, inverse DFT", "voxuda.denoising.noise.highpass",
              "denoising/test_noise.py::test_highpass_against_numpy_full_spectrum", ("03_noise_generation", "highpass_by_hand"),
              None, "the filter's shape is not stated; the four rates are volumes of cubes"),
    Statement("III-A", "The filter rate is 24.4 %", f"{OPTIONS}.rho", "denoising/test_noise.py::test_paper_rates_are_cubes",
              ("03_noise_generation", "noise.PAPER_RATES"), 0.244,
              "the share removed, as the usual code does; `reading` has the other"),
    Statement("III-A", "The average noise level of the whole subset", f"{OPTIONS}.average",
              "denoising/test_noise.py::test_the_two_averages_differ_by_root_n", ("03_noise_generation", 'average="volumes"'),
              "variances", "two readings, both there; of the variances, so that no inverse DFT is needed"),
    Statement("III-A", "10 target samples give the noise level", f"{OPTIONS}.n_sampled",
              "methods/test_methods.py::test_vox_uda_adds_noise_of_the_level_of_the_target",
              ("03_noise_generation", "noise.noise_level(target[:10])"), 10, "drawn again in each step"),
    Statement("Eqs 5, 6", "Gaussian noise of that variance is added to the source", "voxuda.denoising.noise.generate_noise",
              "denoising/test_noise.py::test_generated_noise", ("03_noise_generation", "noise.generate_noise"), None,
              "whether the noised source is segmented too is open; it is", {f"{OPTIONS}.segment_noised": True}),
    Statement("Eq 7", "Cosine consistency at four taps", "voxuda.methods.losses.consistency_loss",
              "methods/test_losses.py::test_consistency_loss_is_a_cosine_similarity", ("05_voxresnet", "consistency_loss"), None,
              "1 minus the similarity of channel vectors, averaged over voxels"),
    Statement("IV-C", "λ is (0.2, 0.2, 0.3, 0.3)", f"{OPTIONS}.lambdas",
              "methods/test_losses.py::test_consistency_loss_closed_form", ("05_voxresnet", "consistency_loss"), (0.2, 0.2, 0.3, 0.3)),
    Statement("Eqs 8, 9", "Bilateral filter of two Gaussian kernels",
              "voxuda.denoising.bilateral.bilateral_filter",
              "denoising/test_bilateral.py::test_bf_equals_the_equation", ("04_bilateral_filters", "bilateral_filter"), None,
              "in a window of 3³; the voxel itself is part of the average", {f"{OPTIONS}.window": 3}),
    Statement("Eqs 10-14", "Improved filter: the range kernel on gradients",
              "voxuda.denoising.bilateral.improved_bilateral_filter",
              "denoising/test_bilateral.py::test_ibf_equals_the_equation", ("04_bilateral_filters", "improved_bilateral_filter"), None,
              "the three Sobel responses are the gradient; the other reading is `sobel_magnitude`",
              {f"{OPTIONS}.gradient": "sobel", f"{OPTIONS}.denoiser": "ibf"}),
    Statement("IV-A", "σ_d is 120", f"{OPTIONS}.sigma_d", "denoising/test_bilateral.py::test_reference_equals_a_loop_over_voxels",
              ("04_bilateral_filters", "sigma_d"), 120.0, "in voxels, so the kernel is a box"),
    Statement("IV-A", "σ_r is 1.2", f"{OPTIONS}.sigma_r", "denoising/test_bilateral.py::test_reference_equals_a_loop_over_voxels",
              ("04_bilateral_filters", "sigma_r"), 1.2, "on volumes scaled to [0, 1], since no scale is given"),
    Statement("Table IV", "IoU of 49.3, 50.3, 49.1 and 47.0 at σ_d of 100 to 160", "voxuda.experiments.paper.RUN_DEVIATION",
              "experiments/test_verdicts.py::test_the_papers_spread_is_that_of_a_knob_that_does_nothing",
              ("04_bilateral_filters", "sigma_d"), None,
              "all four kernels are boxes, so their scatter is taken as the paper's from run to run"),
    Statement("III-B", "NGM denoising: the sample minus its high-pass", "voxuda.denoising.noise.ngm_denoise",
              "denoising/test_noise.py::test_denoising_and_noise_add_up", ("04_bilateral_filters", "ngm_denoise")),
    Statement("III", "The teacher is an exponential moving average", "voxuda.networks.teacher.Teacher",
              "networks/test_teacher.py::test_teacher_closed_form", ("08_teacher", "Teacher"), None, "the decay, 0.99, is ours",
              {f"{OPTIONS}.ema": 0.99}),
    Statement("III", "η is 0.85", f"{OPTIONS}.eta", "networks/test_teacher.py::test_labels", ("08_teacher", "confident_labels"), 0.85,
              "on the more likely class; other voxels are ignored; a warm-up of 30 % is ours", {f"{OPTIONS}.warm_up": 0.3}),
    Statement("III-B", "The teacher sees the denoised target, the student the target", "voxuda.methods.vox_uda.denoise",
              "methods/test_methods.py::test_pseudo_labels_come_from_the_teacher_and_the_denoised_target",
              ("09_vox_uda", "improved_bilateral_filter")),
    Statement("III", "VoxResNet, sum of four outputs", "voxuda.networks.voxresnet.VoxResNet",
              "networks/test_voxresnet.py::test_voxresnet_sizes_as_published", ("05_voxresnet", "VoxResNet"), None,
              "no auxiliary losses; heads straight to class scores; width 32, 16 at scale desk, 8 at laptop and smoke",
              {f"{SCALES}.paper.width": 32, f"{SCALES}.desk.width": 16, f"{SCALES}.laptop.width": 8, f"{SCALES}.smoke.width": 8}),
    Statement("Eq 1", "L = L_seg + L_con + L_dis, all of weight 1", "voxuda.methods.vox_uda.VoxUDA",
              "methods/test_methods.py::test_vox_uda_options_switch_terms", ("09_vox_uda", "losses"), None,
              "the loss of the pseudo-labels, which the equation lacks, is added", {f"{OPTIONS}.adversary": 1.0}),
    Statement("III", "A domain discriminator", "voxuda.networks.discriminators.Discriminator",
              "methods/test_methods.py::test_dann_pushes_features_together_and_the_discriminator_apart",
              ("07_adversaries", "Discriminator"), None, "gradient reversal on v6, form and schedule of DANN"),
    Statement("IV-A", "Adam, 0.001, a tenth after every 100 of 300 epochs", "voxuda.methods.base.Method.rate",
              "training/test_loop.py::test_learning_rate_falls_tenfold_after_each_third", ("09_vox_uda", "loop.train"), None,
              "after each third, however many epochs",
              {"voxuda.training.config.Config.learning_rate": 1e-3, f"{SCALES}.paper.epochs": 300, f"{SCALES}.desk.epochs": 14}),
    Statement("IV-A", "Batch of 16", "voxuda.training.config.SCALES", "training/test_run_folder.py::test_paper_scale_is_the_papers",
              ("10_what_closes_the_gap", 'paper["batch_size"]'), None, "8 at the scales smoke and laptop",
              {f"{SCALES}.paper.batch_size": 16, f"{SCALES}.desk.batch_size": 16, f"{SCALES}.laptop.batch_size": 8, f"{SCALES}.smoke.batch_size": 8}),
    Statement("IV-A", "mIoU and Dice", "voxuda.training.evaluation.iou_and_dice",
              "training/test_evaluation.py::test_iou_and_dice_against_scikit_learn", ("09_vox_uda", "iou_and_dice"), None,
              "of the foreground, a sample each, then the mean, as the paper's tables suggest"),
    Statement("—", "Batch norm statistics of the trained network", "voxuda.networks.voxresnet.target_batch_norm",
              "networks/test_voxresnet.py::test_target_batch_norm_is_the_mean_of_the_target", ("11_ladder", "target_batch_norm"), None,
              "the paper is silent; scores with each kind stand side by side, and other normalisation is an option",
              {"voxuda.training.config.Config.normalisation": "batch"}),
    Statement("Tables I, II", "Nine systems on two source sets", "voxuda.experiments.tables.TABLES",
              "experiments/test_tables.py::test_table_2_is_table_1_on_another_source", ("10_what_closes_the_gap", "tables.TABLES")),
    Statement("IV-A", "ASC and LE-UDA work on two-dimensional slices", "voxuda.methods.asc.ASCSlices",
              "methods/test_baselines.py::test_slices_do_not_see_each_other", ("B_every_row", 'results["table1"]'), None,
              "and in a row beside it on volumes, as the official code of ASC does"),
    Statement("Fig 6", "Features before and after adaptation by t-SNE", "voxuda.training.features.embed",
              "training/test_features.py::test_features_are_means_of_the_deepest_tap", ("B_every_row", 'figure6["embeddings"]'), None,
              "which features is open: the mean over voxels of v6; with both kinds of batch norm statistics"),
    Statement("IV-C", "Poisson noise π(σ_t), speckle noise x N(0, σ_t²)", f"{OPTIONS}.noise",
              "denoising/test_noise.py::test_generated_noise", ("03_noise_generation", '"poisson"'), "gaussian"),
]  # fmt: skip


def faults() -> list[str]:
    """What of the ledger is not so, one sentence each."""
    found = []
    for entry in STATEMENTS:
        try:
            thing = _resolve(entry.symbol)
        except (ImportError, AttributeError):
            found.append(f"{entry.symbol}: no such name")
            continue
        if entry.value is not None and thing != entry.value:
            found.append(f"{entry.symbol} is {thing}, the ledger says {entry.value}")
        for name, value in entry.also.items():
            if (other := _resolve(name)) != value:
                found.append(f"{name} is {other}, the ledger says {value}")
        file, function = entry.test.split("::")
        path = ROOT / "tests" / file
        if not path.exists() or function not in _functions(path):
            found.append(f"{entry.test}: no such test")
        notebook, piece = entry.cell
        path = ROOT / "notebooks" / f"{notebook}.ipynb"
        if not path.exists() or not any(piece in code for code in _code(path)):
            found.append(f"{notebook}: no cell has {piece}")
    return found


def _resolve(name: str) -> object:
    """The object of a full name; of a field of a dataclass, its default; within a dictionary, the value of a key."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            thing = thing[part] if isinstance(thing, dict) else getattr(thing, part)
        return thing
    raise ImportError(name)


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def _code(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def page(title_of: dict[str, str]) -> str:
    """The ledger as Markdown; ``title_of`` has the headings of the notebooks."""
    lines = [
        "# Fidelity ledger",
        "What the paper states, one by one, and what became of it: our symbol, the test that pins it, the chapter showing it."
        " The book is not built if one of them is gone or has another value. Under *Ours* stands where we depart, or what the"
        " paper left for us to choose.",
    ]
    for entry in STATEMENTS:
        field = entry.symbol.startswith(f"{OPTIONS}.")
        target = OPTIONS if field else entry.symbol
        shown = entry.symbol.rsplit(".", 1)[1] + (f" = {entry.value}" if field else "")
        test = entry.test.split("::")[1].removeprefix("test_").replace("_", " ")
        chapter = f"[{title_of[entry.cell[0]]}](../notebooks/{entry.cell[0]})"
        text = f"{entry.where}: {entry.says}\n: {{py:obj}}`{shown} <{target}>` · test *{test}* · {chapter}"
        lines.append(text + (f"\n\n  *Ours:* {entry.departs}" if entry.departs else ""))
    return "\n\n".join(lines) + "\n"
