"""Cards of data sets: whole, held against real annotation files, and shown by the command."""

import csv
import json

import pytest
from click.testing import CliRunner

from ivcore.datasets import cards, published
from ivcore.errors import UserError
from tests.ivcore.datasets.made_up import NAMES, REAL, card, real

AT_HAND = {"msrvtt": "msrvtt", "msvd": "msvd", "msvd_cn": "msvd", "didemo": "didemo", "youcook2": "youcook2"}

WRONG = {
    "msrvtt": "msrvtt/msrvtt_ret_test1k.json",
    "didemo": "didemo/didemo_ret_test.json",
    "youcook2": "msrvtt/MSRVTT_JSFUSION_test.csv",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_a_whole_card(name):
    found = card(name)
    assert all((found.name, found.split, found.caption_rule, found.licence, found.citation, found.main_score))
    assert set(found.languages) <= {"en", "zh", "es"}
    for digest in found.files.values():
        assert digest == cards.UNVERIFIED or (len(digest) == 64 and int(digest, 16))
    assert found.checksum == "none" or found.url.startswith("https://")
    json.dumps(found.facts())


def test_which_cards_are_verified():
    by = {c: {n for n in NAMES if card(n).checksum == c} for c in ("sha256", "unverified", "none")}
    assert by["sha256"] == set(AT_HAND)
    assert by["none"] == {"folder", "mix", "synthetic", "upstream", "upstream_actions", "upstream_mc"}
    assert by["unverified"] >= {"lsmdc", "activitynet", "vatex_en", "vatex_zh", "ssv2_mc", "charades", "hmdb51"}


@real
@pytest.mark.parametrize("name", sorted(AT_HAND))
def test_a_card_fits_its_real_annotation(name):
    counts = published.counts(name, str(REAL / AT_HAND[name]))
    assert counts == {"videos": card(name).num_videos, "captions": card(name).num_captions}


@real
@pytest.mark.parametrize("name", sorted(WRONG))
def test_another_split_is_refused_and_both_are_named(name):
    file = REAL / WRONG[name]
    with pytest.raises(UserError) as error:
        published.counts(name, str(file))
    assert next(iter(card(name).files.values())) in str(error.value)
    assert cards.sha256_file(file) in str(error.value)


@real
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_what_an_annotation_says_is_compared_and_not_its_bytes(tmp_path, separator, end, shuffled):
    with (REAL / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    lines = lines[::-1] if shuffled else lines

    def counts(lines):
        with (tmp_path / "mine.csv").open("w", newline="") as file:
            csv.writer(file, delimiter=separator, lineterminator=end).writerows([head, *lines])
        return published.counts("msrvtt", str(tmp_path / "mine.csv"))

    assert counts(lines) == {"videos": 1000, "captions": 1000}
    for other in (lines[1:], [*lines, lines[0]], [[*lines[0][:-1], "another sentence"], *lines[1:]]):
        with pytest.raises(UserError, match="another split"):
            counts(other)


@real
def test_lists_of_other_line_ends_and_json_of_other_blanks_pass(tmp_path):
    (tmp_path / "test_list.txt").write_bytes((REAL / "msvd" / "test_list.txt").read_bytes().replace(b"\n", b"\r\n"))
    captions = json.loads((REAL / "msvd" / "captions_msvd.json").read_text())
    (tmp_path / "captions_msvd.json").write_text(json.dumps(captions, indent=1, sort_keys=True))
    assert published.counts("msvd", str(tmp_path))["captions"] == 27763


@real
def test_one_name_more_is_refused(tmp_path):
    for file in ("captions_msvd.json", "test_list.txt"):
        (tmp_path / file).write_bytes((REAL / "msvd" / file).read_bytes())
    assert published.counts("msvd", str(tmp_path))["videos"] == 670
    (tmp_path / "test_list.txt").open("a").write("\nnone_0_1\n")
    with pytest.raises(UserError, match="another split"):
        published.counts("msvd", str(tmp_path))


def test_unverified_is_refused_until_it_is_allowed(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("m_1\t0\t0\t0\t0\tShe waits.\nm_2\t0\t0\t0\t0\tHe  goes.\n")
    with pytest.raises(UserError, match=r"unverified.*--allow-unverified"):
        published.counts("lsmdc", str(file))
    assert published.counts("lsmdc", str(file), allow_unverified=True) == {"videos": 2, "captions": 2}


def test_a_count_that_is_not_the_cards_is_said(tmp_path, caplog):
    file = tmp_path / "mine.csv"
    file.write_text("m_1\t0\t0\t0\t0\tShe waits.\n")
    published.counts("lsmdc", str(file), allow_unverified=True)
    assert "the card says 1000 videos, the annotation has 1" in caplog.text
    with pytest.raises(UserError, match="the card says 1000 videos"):
        cards.counted("msrvtt", card("msrvtt"), 999, 1000)


def test_the_command_lists_shows_and_checks(tmp_path):
    from flows.cli import main

    def iv(*words: str):
        return CliRunner().invoke(main, ["datasets", *words])

    assert all(name in iv().output for name in NAMES)
    listed = json.loads(iv("--json").output)["datasets"]
    assert listed["msvd"]["num_captions"] == 27763 and set(listed) == set(NAMES)
    assert "Chen, Dolan" in iv("msvd").output
    file = tmp_path / "a.csv"
    file.write_text("m_1\t0\t0\t0\t0\tShe waits.\n")
    refused = iv("lsmdc", "--check", str(file))
    assert refused.exit_code == 2 and "--allow-unverified" in refused.output
    passed = iv("lsmdc", "--check", str(file), "--allow-unverified", "--json")
    assert passed.exit_code == 0 and '"videos": 1' in passed.output
    assert iv("nowhere").exit_code == 2 and iv("folder", "--check", str(file)).exit_code == 2


def test_the_allowance_reaches_the_config():
    from flows.cli import load

    assert load("demo", (), None, True).data.allow_unverified and not load("demo", (), None).data.allow_unverified
