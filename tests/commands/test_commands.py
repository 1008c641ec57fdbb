import io
import json
import shutil
import sys
from contextlib import suppress

import mrcfile
import numpy as np
import pytest

from voxuda import methods
from voxuda.commands.main import main
from voxuda.data.files import LOCK
from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.training import evaluation, loop, tomograms


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_every_method_trains_saves_and_scores(folders, tmp_path, name, tiny):
    out = tmp_path / "run"
    loop.train(tiny(method=name), out, progress=False)
    assert {p.name for p in out.iterdir()} == {"config.json", "log.jsonl", "weights.safetensors", "checkpoint"}
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert main(["evaluate", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert 0 <= scores["iou"] <= scores["dice"] <= 1 and "4v94" in scores["classes"]
    low, high = scores["overall"]["iou_interval"]
    assert low <= scores["iou"] <= high
    assert scores["by_batch_norm"]["target"]["overall"]["iou"] == scores["iou"]
    assert main(["evaluate", str(out), "--target", str(folders / "target")]) == 0
    again = json.loads((out / "scores-target.json").read_text())
    assert again["overall"]["n"] == 10 and again["target"] == str(folders / "target") and scores["target"] is None
    assert scores == json.loads((out / "scores.json").read_text()), "scores of one target do not replace those of another"


def test_a_target_without_masks_trains_but_is_not_scored(folders, tmp_path, tiny, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(folders / "target", bare)
    (bare / "masks.mrcs").unlink()
    setting = tiny(target=str(bare), epochs=1)
    loop.train(setting, tmp_path / "run", progress=False)
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "has no masks; scores need labels" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run"), "--target", str(folders / "target")]) == 0
    with pytest.raises(InputError, match="method supervised needs target labels"):
        loop.train(tiny(target=str(bare), method="supervised"), tmp_path / "other", progress=False)


def test_the_step_after_training_is_one_that_can_be_taken(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "train", lambda *_, **__: None)
    bare = tmp_path / "bare"
    shutil.copytree(folders / "target", bare)
    (bare / "masks.mrcs").unlink()
    for target, following in [
        ([], "evaluate 'my r'"),
        (["--target", str(folders / "target")], "evaluate 'my r'"),
        (["--target", str(bare)], "segment FILES --model 'my r' --out masks"),
        (["--target", str(tmp_path / "gone")], "evaluate 'my r'"),
    ]:
        assert main(["train", *target, "--out", "my r"]) == 0
        assert capsys.readouterr().out == f"run finished in my r; next: voxuda {following}\n"


def test_resume_takes_the_options_of_the_run(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(loop, "save_weights", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        loop.train(tiny(method="dann", epochs=1), tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_scores_of_another_folder_of_the_same_name_are_kept(folders, tmp_path, tiny):
    loop.train(tiny(method="source-only", epochs=1), tmp_path / "run", progress=False)
    for _ in range(2):
        evaluation.evaluate_run(tmp_path / "run", folders / "target")
    shutil.copytree(folders / "target", tmp_path / "other" / "target")
    with pytest.raises(InputError, match=r"scores-target\.json: has the scores of another folder of that name"):
        evaluation.evaluate_run(tmp_path / "run", tmp_path / "other" / "target")


def test_samples_that_changed_since_are_refused(folders, tmp_path, tiny):
    target = shutil.copytree(folders / "target", tmp_path / "target")
    config = tiny(method="source-only", epochs=1, target=str(target))
    loop.train(config, tmp_path / "run", progress=False)
    evaluation.evaluate_run(tmp_path / "run")
    table = target / "samples.csv"
    table.write_text(table.read_text().replace("4v94", "other"))
    for again in (lambda: evaluation.evaluate_run(tmp_path / "run"), lambda: loop.train(config, tmp_path / "run", resume=True)):
        with pytest.raises(InputError, match="target: its samples are not those with which training began"):
            again()
    evaluation.evaluate_run(tmp_path / "run", target)


def test_a_changed_voxel_is_seen_and_a_lost_source_does_not_matter_for_scores(folders, tmp_path, tiny):
    source, target = (shutil.copytree(folders / name, tmp_path / name) for name in ("source", "target"))
    loop.train(tiny(method="source-only", epochs=1, source=str(source), target=str(target)), tmp_path / "run", progress=False)
    shutil.rmtree(source)
    evaluation.evaluate_run(tmp_path / "run")
    with open(target / "volumes.mrcs", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x40")
    with pytest.raises(InputError, match="target: its samples are not those with which training began"):
        evaluation.evaluate_run(tmp_path / "run")


def test_resume_without_a_run_trains_no_other(tmp_path, capsys):
    assert main(["train", "--resume", "--out", str(tmp_path / "rum")]) == 2
    assert "rum: holds no run to resume; give the options of the run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("voxuda 0.")


def test_command_line_from_simulation_to_masks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("simulate source --molecules 3gl1 --n-per-molecule 1 --snr 0.3 --size 16 --seed 1 --out s".split()) == 0
    assert main("simulate target --n 2 --size 16 --molecules 4v94 --seed 3 --out tilts".split()) == 0
    assert (tmp_path / "tilts" / "samples.csv").read_text().splitlines()[0].startswith("index,molecule,specimen,dose,")
    assert main("simulate quick --molecules 4v94 --n-per-molecule 5 --size 16 --out deep/t".split()) == 0
    assert {p.name for p in (tmp_path / "s").iterdir()} == {"volumes.mrcs", "masks.mrcs", "densities.mrcs", "samples.csv"}
    assert (tmp_path / "s" / "samples.csv").read_text().splitlines()[0] == "index,molecule,snr,defocus,voxel_size"
    train = "train --method source-only --source s --target deep/t --epochs 1 --width 2 --batch-size 1 --out r"
    assert main(train.split()) == 0
    assert main([*train.split(), "--resume"]) == 0
    stack = read_mrc("deep/t/volumes.mrcs").data
    write_mrc("one.mrc", stack[0], 13.5, origin=(1.0, 2.0, 3.0), start=(4, -5, 6))
    assert main("segment one.mrc deep/t/volumes.mrcs --model r --out m".split()) == 0
    one, many = read_mrc("m/one_mask.mrc"), read_mrc("m/volumes_mask.mrcs")
    assert one.data.shape == (16, 16, 16) and one.voxel_size == pytest.approx(13.5) and one.origin == (1.0, 2.0, 3.0)
    assert one.start == (4, -5, 6)
    assert many.data.shape == (5, 16, 16, 16) and set(np.unique(many.data)) <= {0.0, 1.0}
    np.testing.assert_array_equal(one.data, many.data[0])
    assert main(["molecules", "list"]) == 0
    assert "1bxn" in capsys.readouterr().out


def test_own_coordinates_become_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    atom = "ATOM  {0:>5}  CA  ALA A{0:>4}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00  0.00           C\n"
    rng = np.random.default_rng(0)
    (tmp_path / "Mine.pdb").write_text("".join(atom.format(i, *rng.normal(0, 20, 3)) for i in range(1, 2000)) + "END\n")
    assert main("molecules derive Mine.pdb --beads 200 --out beads".split()) == 0
    assert "beads/mine.npz: 24 kDa in 200 beads, correlation 0.9" in capsys.readouterr().out
    assert main("molecules derive Mine.pdb --out beads".split()) == 2
    assert "mine.npz: the file exists" in capsys.readouterr().err
    assert main("simulate source --molecules beads/mine.npz 3gl1 --n-per-molecule 1 --out s".split()) == 0
    assert (tmp_path / "s" / "samples.csv").read_text().splitlines()[1].startswith("0,mine,")
    for command, message in [
        ("molecules derive Mine.pdb --beads 0 --out b", "beads is 0"),
        ("molecules derive Mine.pdb --out Mine.pdb", "Mine.pdb is a file; give a folder for the output"),
        ("molecules derive empty.cif --out b", "empty.cif: holds no atoms"),
    ]:
        (tmp_path / "empty.cif").write_text("data_x\n")
        assert main(command.split()) == 2
        assert message in capsys.readouterr().err
    density = np.zeros((20, 20, 20), np.float32)
    density[6:14, 6:14, 5:15] = 1.0
    write_mrc("box.map", density, 8.0)
    assert main("molecules derive box.map --dalton 300000 --beads 200 --out beads".split()) == 0
    assert "beads/box.npz: 3" in capsys.readouterr().out
    assert main("molecules derive none.pdb --out beads".split()) == 2
    assert "none.pdb: no such file" in capsys.readouterr().err


def test_reproduce_prints_the_table(tmp_path, monkeypatch, capsys, short_smoke):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("voxuda.experiments.pool.in_processes", lambda jobs: _Here())
    assert main("reproduce modules --only source-only supervised --out runs".split()) == 0
    printed = capsys.readouterr().out
    assert "| without adaptation |" in printed and "| fully supervised |" in printed
    assert len(json.loads((tmp_path / "runs" / "modules-smoke.json").read_text())["rows"]) == 2


class _Here:
    """A pool that runs in this process, where the test has made the scale small."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["simulate"],
        ["simulate", "source"],
        ["simulate", "target"],
        ["simulate", "quick"],
        ["data"],
        ["data", "check"],
        ["train"],
        ["evaluate"],
        ["segment"],
        ["reproduce"],
        ["molecules"],
        ["molecules", "list"],
        ["molecules", "derive"],
        ["molecules", "fetch"],
    ],
)
def test_help_teaches_by_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "voxuda" in text
    if command not in (["simulate"], ["molecules"], ["molecules", "list"]):
        assert f"voxuda {' '.join(command)}".strip() in text.replace("usage: ", "", 1).split("\n", 1)[1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("simulate source --molecules nope --out s", "nope: no embedded molecule"),
        ("simulate source --molecules 1bxn --out full", "full: the folder is not empty"),
        ("simulate source --molecules 1bxn --out full/file", "is a file"),
        ("simulate source --molecules 1bxn --out full/file/deep", "is a file"),
        ("simulate source --molecules 1bxn --n-per-molecule 1 --out /proc/voxuda", "/proc/voxuda: cannot be written"),
        ("simulate source --molecules 1bxn --snr 0 --out s", "positive variance ratio"),
        ("simulate target --molecules 4v94 1bxn --proportions 1 --out s", "one positive number per molecule"),
        ("simulate target --n 0 --out s", "n is 0"),
        ("simulate target --dose 100 10 --out s", "the lower first"),
        ("simulate target --molecules nope --out s", "nope: no embedded molecule"),
        ("simulate target --out full", "full: the folder is not empty"),
        ("reproduce ladder --only dann --out s", "give it only --out, --scale, --seeds and --jobs, without --only."),
        ("reproduce ladder --first-seed 1 --device auto --out s", "without --first-seed, --device."),
        ("reproduce real --out s", "needs --target"),
        ("reproduce tilt-series --out s", "tilt-series: no such table"),
        ("reproduce nope --out s", "and ladder"),
        ("simulate quick --molecules 4v94 --n-per-molecule 0 --out s", "must be at least 1"),
        ("train --method nope --out r", "nope: no such method"),
        ("train --target none --out r", "none: no such folder"),
        ("train --target empty --out r", "empty: holds no volumes.mrcs"),
        ("train --epochs 0 --out r", "epochs is 0"),
        ("train --seed -1 --out r", "seed is -1"),
        ("train --learning-rate nan --out r", "learning_rate is nan"),
        ("train --vox-uda.rho 2 --out r", "rho is 2.0"),
        ("simulate source --molecules 1bxn --snr nan --out s", "positive variance ratio"),
        ("simulate quick --molecules 4v94 --snr 0.1 inf --out s", "finite variance ratio"),
        ("simulate source --molecules 1bxn --size 10 --out s", "size is 10"),
        ("simulate source --molecules 1bxn --n-per-molecule 100000000000000 --out s", "at most a million"),
        ("train --scale smoke --out full", "full: the folder is not empty"),
        ("evaluate none", "no such file; make a run"),
        ("evaluate full", "no such file; make a run"),
        ("segment x.mrc --model none --out m", "none: no such model; give the folder of a run, or one of balanced,"),
        ("reproduce table9 --out r", "table9: no such table"),
        ("reproduce modules --only nope --out r", "nope: no such row"),
        ("molecules derive full --out d", "full: no such file; give a PDB or mmCIF file"),
        ("molecules fetch nonsense", "nonsense: not a PDB id"),
        ("molecules derive full/file --out d", "full/file"),
        ("molecules derive none.map --out d", "a map needs the mass"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    spoken = [line for line in error.splitlines() if line.startswith("voxuda: ")]  # a progress bar may stand above
    assert len(spoken) == 1 and message in spoken[0] and spoken[0] == error.splitlines()[-1] and "Traceback" not in error
    assert {p.name for p in tmp_path.iterdir()} == {"full", "empty"}, "something half-written is left"
    with pytest.raises(InputError):
        main([*command.split(), "--debug"])


@pytest.mark.parametrize(
    "command",
    [
        "train --target none --out out",
        "train --resume --target none --out out",
        "simulate source --molecules nope --out out",
        "simulate target --molecules nope --out out",
        "simulate quick --molecules nope --out out",
        "data convert none --out out",
        "data ribosomes none --out out",
        "data fetch ribosomes-12A --out out",
        "molecules derive none.pdb --out out",
        "results keep runs --into out",
    ],
)
def test_a_second_job_is_refused_before_it_does_anything(tmp_path, monkeypatch, capsys, hold, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "row" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "row" / "seed-0" / "summary.json").touch()
    with hold(tmp_path / "out") as said:
        assert main(command.split()) == 2
        assert capsys.readouterr().err.startswith(f"voxuda: {said}")
        assert [p.name for p in (tmp_path / "out").iterdir()] == [LOCK]


def test_output_that_takes_ascii_only(tmp_path, monkeypatch):
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32), 13.5)

    def printed(*command):
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            with suppress(SystemExit):
                main([*command])
            for stream in streams.values():
                stream.flush()
        return [stream.buffer.getvalue().decode("ascii") for stream in streams.values()]

    assert "13.50 A, read as 13.50 A" in printed("data", "check", str(tmp_path))[0]
    assert "* train" in printed("--help")[0]
    assert r"voxuda: d\xfc: no such folder" in printed("data", "check", "dü")[1]


def test_commands_in_messages_hold_for_paths_with_spaces(tmp_path, monkeypatch, capsys, tiny):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "my run"]) == main(["results", "keep", "my runs", "--into", "x"]) == 2
    assert main(["results", "show", "table1", "--runs", "my runs"]) == 2
    loop.train(tiny(method="source-only", epochs=1), "my run", progress=False)
    (tmp_path / "my run" / "weights.safetensors").unlink()
    assert main(["evaluate", "my run"]) == 2
    errors = capsys.readouterr().err
    for said in (
        "train --out 'my run'`",
        "reproduce TABLE --out 'my runs'`",
        "laptop --out 'my runs'`",
        "resume --out 'my run'`",
    ):
        assert said in errors


def test_segment_refuses_bad_volumes(tmp_path, monkeypatch, capsys, tiny):
    monkeypatch.chdir(tmp_path)
    loop.train(tiny(method="source-only", epochs=1), tmp_path / "r", progress=False)
    noise = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    write_mrc("good.mrc", noise)
    write_mrc("flat.mrc", np.ones((16, 16, 16), np.float32))
    write_mrc("odd.mrcs", np.stack([noise[1:], noise[1:]]))
    write_mrc("tomogram.mrc", np.pad(noise, [(0, 1), (0, 0), (0, 0)]))
    holes = noise.copy()
    holes[3, 3, 3] = np.nan
    with mrcfile.new("nan.mrc") as mrc, np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="NaN"):
        mrc.set_data(holes)
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "good.mrc").read_bytes()[:3000])
    with mrcfile.new("long.mrc") as mrc:
        mrc.set_data(noise)
        mrc.voxel_size = (10.0, 10.0, 20.0)
    for name, shape in {"tilts.mrcs": (41, 96, 96), "cube.mrcs": (32, 32, 32)}.items():
        with mrcfile.new(name) as mrc:
            mrc.set_data(np.random.default_rng(0).normal(size=shape).astype(np.float32))
            mrc.set_image_stack()
    (tmp_path / "p.star").write_text("data_\n")
    (tmp_path / "p.hdf").touch()
    (tmp_path / "again" / "deep").mkdir(parents=True)
    shutil.copy("good.mrc", "again/good.mrc")
    for files, message in [
        ("flat.mrc", "flat.mrc: every voxel has the same value"),
        ("long.mrc", "long.mrc: the header gives voxels of 10 x 10 x 20 Å, which are not cubes"),
        ("odd.mrcs", "odd.mrcs: sides (15, 16, 16) must be multiples of 8"),
        ("tomogram.mrc --tile 20", "tile is 20"),
        ("tomogram.mrc --overlap 32", "overlap is 32"),
        ("nan.mrc", "nan.mrc: 1 voxels are NaN"),
        ("cut.mrc", "cut.mrc: not a readable MRC file"),
        ("none.mrc", "none.mrc: no such file"),
        ("again/deep", "deep: holds no MRC volume"),
        ("r", "r: is a run, not a volume; give it as --model r"),
        ("p.star", "p.star: is a star file; convert it with `voxuda data convert`"),
        ("p.hdf", "p.hdf: EMAN2's format; export it as MRC"),
        ("tilts.mrcs", "tilts.mrcs: shape (41, 96, 96) is a stack of 2D images"),
        ("cube.mrcs", "cube.mrcs: shape (32, 32, 32) is a stack of 2D images"),
        ("good.mrc --out cut.mrc", "cut.mrc is a file; give a folder for the output"),
        ("tomogram.mrc --out cut.mrc", "cut.mrc is a file; give a folder for the output"),
        ("tomogram.mrc --out cut.mrc/deep", "cut.mrc is a file; give a folder for the output"),
        ("good.mrc flat.mrc", "flat.mrc: every voxel"),
        ("good.mrc again/good.mrc", "good_mask.mrc would be written twice"),
    ]:
        assert main(["segment", "--model", "r", "--out", "m", *files.split()]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "m").exists(), "a mask was written before all files were checked"


def test_segment_tomograms_one_by_one(tmp_path, monkeypatch, capsys, tiny):
    monkeypatch.chdir(tmp_path)
    loop.train(tiny(method="source-only", epochs=1), tmp_path / "r", progress=False)
    noise = np.random.default_rng(0).normal(size=(40, 36, 33)).astype(np.float32)
    write_mrc("a.mrc", noise, 10.0, origin=(1.0, 2.0, 3.0))
    write_mrc("b.rec", noise[::-1], 13.5)
    write_mrc("flat.mrc", np.ones((41, 40, 40), np.float32))
    command = "segment a.mrc b.rec --model r --out m".split()
    assert main("segment a.mrc flat.mrc --model r --out m".split()) == 2
    assert "flat.mrc: every voxel has the same value" in capsys.readouterr().err
    assert not (tmp_path / "m").exists(), "a mask was begun before all files were checked"

    layer, calls = tomograms.segment_layer, iter([False, False, False, True])  # in the second layer of the second tomogram
    with monkeypatch.context() as patch:
        patch.setattr(
            tomograms, "segment_layer", lambda *a: layer(*a) if not next(calls) else (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main(command) == 130
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"a_mask.mrc", "a_mask.png", ".b_mask.rec.work"}
    first = (tmp_path / "m" / "a_mask.mrc").stat().st_mtime_ns
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("m/a_mask.mrc: ") and said[0].endswith(
        " % protein, 10.00 Å, was there already".replace(" %", "%")
    )
    assert said[1].startswith("m/b_mask.rec: ") and " component" in said[1] and said[1].endswith(" GB") and "13.50 Å" in said[1]
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"a_mask.mrc", "a_mask.png", "b_mask.rec", "b_mask.png"}
    assert (tmp_path / "m" / "a_mask.mrc").stat().st_mtime_ns == first
    mask = read_mrc("m/a_mask.mrc")
    assert mask.data.shape == (40, 36, 33) and mask.voxel_size == pytest.approx(10.0) and mask.origin == (1.0, 2.0, 3.0)
    assert main([*command, "--overlap", "8"]) == 2
    assert "a_mask.mrc: exists, made from another volume or with other options" in capsys.readouterr().err


def test_segment_refuses_weights_of_another_architecture(tmp_path, monkeypatch, capsys, tiny):
    monkeypatch.chdir(tmp_path)
    for width in (2, 4):
        loop.train(tiny(method="source-only", epochs=1, width=width), tmp_path / f"r{width}", progress=False)
    shutil.copy("r4/weights.safetensors", "r2/weights.safetensors")
    write_mrc("good.mrc", np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    assert main("segment good.mrc --model r2 --out m".split()) == 2
    assert "weights.safetensors: damaged, or weights of another architecture" in capsys.readouterr().err


def test_interrupt_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupt)
    assert main(["train", "--out", str(tmp_path / "r")]) == 130
    assert "--resume" in capsys.readouterr().err


def test_stored_scores_on_real_data_are_shown(capsys):
    assert main(["results", "show", "real"]) == 0
    shown = capsys.readouterr().out
    assert "fully supervised" in shown and "a ball in the middle" in shown
    assert main(["results", "show", "real", "--target", "ribosomes"]) == 2
