"""`rostro evaluate` of a task that is not the siamese one, `rostro score` and `rostro compare`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from data_shards.shard_format.shard_set import ShardSet
from hpc.config.parse import save_config
from hpc.runs.run_dir import RunDir
from launch.cli import main
from tests.support.age_task import age_run, faces
from tests.support.judged import judged_run
from tests.support.sets import pack_set
from tests.support.small_set import jpeg, photo


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return faces(tmp_path_factory.mktemp("set") / "faces", identities=30)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    return age_run(tmp_path_factory.mktemp("runs") / "age", shards)


@pytest.fixture(scope="module")
def siamese(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("siamese")
    return judged_run(folder / "pairs", pack_set(folder / "set", identities=8, each=3, holdout=0.5))


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def refused(words: list[str], capsys) -> str:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_a_run_of_any_task_is_judged_by_its_evaluators_with_bias_by_group(run, shards, capsys):
    assert main(["evaluate", str(run), "bootstrap=20"]) == 0
    shown = capsys.readouterr().out
    report = report_of(run / "evaluations" / "procedural-eval")
    held_out = ShardSet.open(shards / "eval")
    assert report["samples"] == len(held_out)
    age, gender = (report["evaluators"][name] for name in ("age", "gender"))
    assert {"mae", "rmse", "bias", "mae_gap_gender"} <= age["scalars"].keys()
    low, high = age["intervals_95"]["mae"]
    assert low <= age["scalars"]["mae"] <= high
    assert {row[0] for row in age["tables"]["by gender"]["rows"]} == {"0", "1", "gap"}
    assert gender["chosen"]["temperature"] > 0
    assert gender["scalars"]["log_loss_calibrated"] > 0
    assert "chosen on val" in shown
    assert "by gender" in shown
    page = (run / "evaluations" / "procedural-eval" / "report.html").read_text()
    assert page.count("<img") == len(report["pictures_drawn"]) >= 3
    assert (run / "evaluations" / "procedural-eval" / "gender-confusion.png").is_file()
    assert report["chosen_on_these_people"] is False


def test_where_val_is_gone_the_report_says_what_was_chosen_on_the_judged_images(run, shards, capsys):
    (shards / "val").rename(shards / "gone")
    try:
        assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    finally:
        (shards / "gone").rename(shards / "val")
    shown = capsys.readouterr().out
    assert "chosen on these images" in shown
    assert "it is not known who chose checkpoint and threshold" in shown
    assert "were chosen on these people" not in shown
    assert report_of(run / "evaluations" / "procedural-eval")["chosen_on_these_people"] is None


def test_a_gate_ends_with_exit_code_1_and_words_of_other_evaluators_are_refused(run, siamese, capsys):
    assert main(["evaluate", str(run), "bootstrap=0", "groups=gender", "gate=1e-6"]) == 1
    said = capsys.readouterr()
    assert "error: age: mae differs by" in said.err
    report = report_of(run / "evaluations" / "procedural-eval")
    assert list(report["evaluators"]["age"]["tables"]) == ["errors", "by gender"]
    error = refused(["evaluate", str(run), "pairs=x"], capsys)
    assert (
        "pairs=x does not belong to task ages of age: its evaluators (age, gender) take gate=, groups="
        in error
    )
    assert "gate=3.0 does not belong to task siamese" in refused(["evaluate", str(siamese), "gate=3"], capsys)
    assert "groups=hair: " in refused(["evaluate", str(run), "groups=hair"], capsys)


def test_verify_refuses_a_run_of_another_task_by_name(run, tmp_path, capsys):
    image = tmp_path / "a.jpg"
    image.write_bytes(jpeg(photo(0, 40, 40)))
    error = refused(["verify", str(run), str(image), str(image)], capsys)
    assert "task=ages" in error
    assert "rostro predict" in error


def test_export_and_info_ask_the_task(run, siamese, tmp_path, capsys):
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    assert main(["export", str(run), f"out={tmp_path}", "onnx=false"]) == 0
    card = json.loads((tmp_path / "model.json").read_text())
    assert (card["score"], card["threshold"], card["evaluators"]) == (None, None, ["age", "gender"])
    (figures,) = card["evaluations"]
    assert figures["evaluators"]["age"]["scalars"]["mae"] > 0
    assert figures["evaluators"]["gender"]["chosen"]["temperature"] > 0
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "ages",
        "Values: groups=, gate=",
        "age/mae, min",
        "160 images, age/mae 9",
        "procedural-eval",
    ):
        assert text in shown
    assert main(["info", str(siamese)]) == 0
    assert "yes, by cosine" in capsys.readouterr().out


def predictions(run: Path, place: Path, out: Path) -> Path:
    assert main(["predict", str(run), f"in={place}", f"out={out}"]) == 0
    return out / "predictions.csv"


def test_a_scored_file_of_our_own_predictions_has_the_figures_of_evaluate(run, shards, tmp_path, capsys):
    file = predictions(run, shards / "eval", tmp_path)
    truth = f"truth={shards / 'eval'}"
    assert main(["score", "values", f"predictions={file}", truth, "field=age", "bootstrap=0"]) == 0
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    ours = report_of(run / "evaluations" / "procedural-eval")["evaluators"]["age"]["scalars"]
    scored = report_of(tmp_path / "predictions.age.report")["evaluators"]["age"]["scalars"]
    assert scored == pytest.approx(ours, rel=1e-5)
    capsys.readouterr()
    compared = ["compare", str(run), str(tmp_path / "predictions.age.report")]
    assert main([*compared, "metric=age/mae"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"{ours['mae']:.4g}") == shown.count("procedural eval") == 2
    assert "not judged on the same set" not in shown
    other = truth_file(tmp_path / "truth.csv", ["a", "b"], years=[1, 2])
    words = [f"predictions={other}", f"truth={other}", "bootstrap=0", f"out={tmp_path / 'other'}"]
    assert main(["score", "values", *words]) == 0
    error = refused(["compare", str(run), str(tmp_path / "other")], capsys)
    assert "truth has years/mae, years/rmse, years/bias, none of which the runs of task ages have" in error


def truth_file(path: Path, names: list[str], **columns: list) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *columns])
        writer.writerows(zip(names, *columns.values(), strict=True))
    return path


def test_classes_by_name_by_number_and_as_probabilities_are_the_same(tmp_path, capsys):
    names = [f"x/{n}.jpg" for n in range(12)]
    labels = ["joy", "fear", "rage"] * 4
    guessed = ["joy", "fear", "fear"] * 4
    truth = truth_file(tmp_path / "truth.csv", names, mood=labels)
    order = ["fear", "joy", "rage"]
    shares = np.full((12, 3), 0.1)
    shares[np.arange(12), [order.index(name) for name in guessed]] = 0.8
    (tmp_path / "b.json").write_text(
        json.dumps(
            [{"image": n.replace("jpg", "png"), "mood": list(s)} for n, s in zip(names, shares, strict=True)]
        )
    )
    truth_file(tmp_path / "a.csv", names[::-1], mood=guessed[::-1])
    np.savez(tmp_path / "c.npz", image=np.array(names), mood=np.log(shares))
    found = []
    for file in ("a.csv", "b.json", "c.npz"):
        words = [
            f"predictions={tmp_path / file}",
            f"truth={truth}",
            "bootstrap=0",
            f"out={tmp_path / file}.d",
        ]
        assert main(["score", "classes", *words]) == 0
        found.append(report_of(tmp_path / f"{file}.d")["evaluators"]["mood"]["scalars"])
    assert found[1] == pytest.approx(found[2])
    assert found[0]["accuracy"] == found[1]["accuracy"] == pytest.approx(2 / 3)
    assert "ece" not in found[0]
    assert "ece" in found[1]
    assert "mood_0 ... are taken as fear, joy, rage, in this order" in capsys.readouterr().out
    np.savez(tmp_path / "d.npz", image=np.array(names), mood=np.zeros((12, 4)))
    words = [f"predictions={tmp_path / 'd.npz'}", f"truth={truth}"]
    assert "mood has 4 columns, truth=" in refused(["score", "classes", *words], capsys)


def test_a_report_in_the_place_of_another_keeps_none_of_its_pictures(tmp_path, capsys):
    truth = truth_file(tmp_path / "truth.csv", ["a", "b"], age=[1, 2], mood=["joy", "fear"])
    words = [f"predictions={truth}", f"truth={truth}", "bootstrap=0", f"out={tmp_path / 'x'}"]
    for kind, field, picture in (("values", "age", "errors.png"), ("classes", "mood", "confusion.png")):
        assert main(["score", kind, f"field={field}", *words]) == 0
        assert [path.name for path in (tmp_path / "x").glob("*.png")] == [picture]
    gone = [f"predictions={truth}", f"truth={tmp_path / 'gone'}"]
    assert "gone does not exist: give a CSV" in refused(["score", "values", *gone], capsys)


def test_scores_of_pairs_and_embeddings(siamese, tmp_path, capsys):
    held_out = RunDir(siamese).config().data.eval
    list_file = tmp_path / "pairs.txt"
    assert main(["pairs", held_out, f"out={list_file}", "n=6"]) == 0
    file = predictions(siamese, Path(held_out), tmp_path)
    words = [f"truth={held_out}", "bootstrap=0"]
    assert main(["score", "verification", f"predictions={file}", *words]) == 0
    assert main(["evaluate", str(siamese), "bootstrap=0"]) == 0
    ours = report_of(siamese / "evaluations" / "pictures-eval")["rows"][0]
    scored = report_of(tmp_path / "predictions.report")["evaluators"]["verification"]["scalars"]
    assert scored["eer"] == pytest.approx(ours["eer"], abs=1e-6)
    assert main(["score", "verification", f"predictions={file}", *words, f"pairs={list_file}"]) == 0

    pairs = [("p/1", "p/2", 1), ("p/1", "q/1", 0), ("q/1", "q/2", 1), ("q/2", "p/2", 0)]
    listed = tmp_path / "list.csv"
    listed.write_text("".join(f"{a}.jpg,{b}.jpg,{same}\n" for a, b, same in pairs))
    given = tmp_path / "given.csv"
    given.write_text("a,b,score\n" + "".join(f"{b},{a},{same + 0.5}\n" for a, b, same in pairs))
    words = [f"predictions={given}", f"truth={listed}", "bootstrap=0"]
    assert main(["score", "verification", *words]) == 0
    assert report_of(tmp_path / "given.report")["evaluators"]["verification"]["scalars"]["eer"] == 0
    given.write_text("\n".join(given.read_text().splitlines()[:-1]))
    capsys.readouterr()
    assert "lacks 1 of the 4 pairs" in refused(["score", "verification", *words], capsys)
    given.write_text("a,b,score\np/1,p/2,1\np/2.jpg,p/1.jpg,0\n")
    assert "scores the pair p/2.jpg p/1.jpg twice" in refused(["score", "verification", *words], capsys)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("image,age\na,1\na,2\n", [], "names the image a twice"),
        ("image,age\na,1,2\n", [], "row 1 has 3 cells, the header 2"),
        ("image,age\na,old\nb,2\n", [], "age of row 1 is 'old': give finite numbers"),
        ("image,age\na,nan\nb,2\n", [], "age of row 1 is 'nan': give finite numbers"),
        ("image,years\na,1\nb,2\n", [], "share no label: add field=NAME"),
        ("name,age\na,1\n", [], "has no column `image`, only name, age"),
        (
            "image,age\na,1\n",
            [],
            "lacks 1 of the 2 images of the truth, first b: predict them, or type missing=skip",
        ),
        ("image,age\nc,1\n", [], "holds none of the 2 images of the truth, such as a"),
        ("", [], "holds no rows"),
        ("image,age\na,1\nb,2\n", ["pairs=x"], "pairs=x does not belong to kind values"),
        ("image,age\na,1\nb,2\n", ["groups=race"], "groups= takes labels of a packed set: give truth=SET"),
        ("image,age\na,1\nb,2\n", ["field=race"], "field=race: truth="),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, words, message, capsys):
    truth = truth_file(tmp_path / "truth.csv", ["a.jpg", "b.jpg"], age=[1, 2])
    (tmp_path / "p.csv").write_text(content)
    words = [f"predictions={tmp_path / 'p.csv'}", f"truth={truth}", "bootstrap=0", *words]
    assert message in refused(["score", "values", *words], capsys)


def test_other_bad_files_and_kinds(tmp_path, capsys):
    truth = truth_file(tmp_path / "truth.csv", ["a.jpg", "b.jpg"], age=[1, 2])
    for name, data in (
        ("x.npz", b"PK"),
        ("x.json", b"{"),
        ("x.json", b"[1]"),
        ("x.txt", b""),
        ("x.csv", b"\xff"),
    ):
        (tmp_path / name).write_bytes(data)
        words = [f"predictions={tmp_path / name}", f"truth={truth}"]
        assert str(tmp_path / name) in refused(["score", "values", *words], capsys)
    np.savez(tmp_path / "y.npz", image=np.array(["a", "b"], object), age=np.ones(2))
    words = [f"predictions={tmp_path / 'y.npz'}", f"truth={truth}"]
    assert "is not an npz of plain arrays" in refused(["score", "values", *words], capsys)
    assert "boxez is not a kind: known kinds: classes" in refused(["score", "boxez", *words], capsys)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, shards) -> list[Path]:
    folder = tmp_path_factory.mktemp("seeds")
    runs = [age_run(folder / f"seed{seed}", shards, seed=seed) for seed in range(3)]
    other = age_run(folder / "other", shards, seed=1)
    config = RunDir(other).config()
    config.optim.lr = 0.5
    save_config(config, other / "config.yaml")
    return [*runs, other]


def test_runs_are_compared_with_mean_and_spread_over_seeds(seeds, capsys):
    assert main(["compare", *map(str, seeds[:3])]) == 0
    shown = capsys.readouterr().out
    assert "mean of 3 seeds" in shown
    assert "10 ± 1" in shown
    assert main(["compare", *map(str, seeds), "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["figures"]["age/mae"] for run in found["runs"]] == [9, 10, 11, 10]
    (group,) = found["groups"]
    assert group["runs"] == ["seed0", "seed1", "seed2"]
    assert (group["mean"]["age/mae"], group["std"]["age/mae"]) == (10, 1)
    assert main(["compare", *map(str, seeds)]) == 0
    assert "optim.lr" in capsys.readouterr().out


def test_what_cannot_be_compared(seeds, siamese, capsys, tmp_path):
    error = refused(["compare", str(seeds[0]), str(siamese)], capsys)
    assert "seed0 is of task ages, pairs of task siamese" in error
    one = str(seeds[0])
    assert "RUN is missing" in refused(["compare"], capsys)
    assert "is named twice" in refused(["compare", one, one], capsys)
    assert "metric=x is not a figure of these runs: use age/mae" in refused(
        ["compare", one, "metric=x"], capsys
    )
    assert "has no report of that name, it has none" in refused(["compare", one, "report=x"], capsys)
    assert "is not a run directory" in refused(["compare", str(tmp_path)], capsys)
