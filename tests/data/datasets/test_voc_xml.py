"""Pascal VOC's annotation files: valid ones are read, damaged ones named with file, tag and value."""

import pytest

from denserc.data.datasets.transfer import voc_annotations, write_voc
from denserc.data.datasets.voc_xml import read_voc_xml
from denserc.data.vocabulary.published import vocabulary
from denserc.structures import DataError
from tests.paths import FIXTURES

VALID = (
    "<annotation><size><width>32</width><height>24</height></size><object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>14.5</ymax></bndbox></object></annotation>"
)
BOMB = '<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
FILE = '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def write(tmp_path, text):
    path = tmp_path / "000001.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        VALID,
        f"\ufeff{VALID}",
        f'<?xml version="1.0" encoding="UTF-8"?>\n{VALID}',
        f'<?xml version="1.0" encoding="latin-1"?><!-- caf\xe9 -->{VALID}'.encode("latin-1"),
        VALID.encode("utf-16"),
        VALID.replace("<width>32<", "<width> 32.0 <"),
        VALID.replace("<difficult>0</difficult>", ""),
        VALID.replace(">0</difficult>", "></difficult>"),
        VALID.replace("</object>", "<part><name>head</name><bndbox><xmin>x</xmin></bndbox></part></object>"),
    ],
)
def test_forms_of_a_valid_file_are_read_alike(tmp_path, text):
    found = read_voc_xml(write(tmp_path, text))
    (item,) = found.objects
    assert (found.height, found.width) == (24, 32)
    assert (item.name, item.corners, item.difficult) == ("cat", (3, 4, 12, 14.5), False)


@pytest.mark.parametrize("tag, text", [("size/height", ">24<"), ("size/width", ">32<")])
@pytest.mark.parametrize("value", ["abc", "0", "-3", "1.5", "nan", "inf", "1e400", "", " ", "9" * 5000, "1_0", "0x10"])
def test_sizes_are_whole_numbers_above_zero(tmp_path, tag, text, value):
    with pytest.raises(DataError, match=f"000001.xml: <{tag}> is"):
        read_voc_xml(write(tmp_path, VALID.replace(text, f">{value}<")))


@pytest.mark.parametrize("tag, text", [("xmin", ">3<"), ("ymin", ">4<"), ("xmax", ">12<"), ("ymax", ">14.5<")])
@pytest.mark.parametrize("value", ["abc", "nan", "-inf", "Infinity", "1e400", "", "1,5", "3 4", "٣", "1e12", "true"])
def test_corners_are_finite_numbers(tmp_path, tag, text, value):
    with pytest.raises(DataError, match=f"000001.xml, object 0: <bndbox/{tag}> is"):
        read_voc_xml(write(tmp_path, VALID.replace(text, f">{value}<")))


@pytest.mark.parametrize(
    "old, new, message",
    [
        (">12<", ">2<", "<xmax> 2 is below <xmin> 3"),
        (">14.5<", ">-3<", "<ymax> -3 is below <ymin> 4"),
        (">0</difficult>", ">2</difficult>", "<difficult> is '2'"),
        (">0</difficult>", ">yes</difficult>", "<difficult> is 'yes'"),
        (">cat<", "> <", "<name> is empty"),
        ("<name>cat</name>", "", "there is no <name> in <object>"),
        ("<xmin>3</xmin>", "", "there is no <bndbox/xmin>"),
        ("<size>", "<sizes>", "cannot be read"),
        ("annotation>", "html>", "begins with <html>"),
        (VALID, "", "cannot be read"),
        (VALID, "{}", "cannot be read"),
        (VALID, VALID[:-30], "cannot be read"),
        (VALID, VALID * 2, "cannot be read"),
        ("cat", "&a;", "cannot be read"),
        (VALID, BOMB + VALID.replace("cat", "&b;"), "<!DOCTYPE annotation> is not read"),
        (VALID, FILE + VALID.replace("cat", "&a;"), "<!DOCTYPE annotation> is not read"),
        (VALID, f'<?xml version="1.0" encoding="none"?>{VALID}', "cannot be read"),
        ("cat", "c\0t", "cannot be read"),
    ],
)
def test_other_damage_is_named(tmp_path, old, new, message):
    with pytest.raises(DataError, match=message) as raised:
        read_voc_xml(write(tmp_path, VALID.replace(old, new)))
    assert "000001.xml" in str(raised.value)


def test_absent_files_and_folders_are_named(tmp_path):
    (tmp_path / "folder.xml").mkdir()
    for name in ("none.xml", "folder.xml"):
        with pytest.raises(DataError, match=name):
            read_voc_xml(tmp_path / name)


@pytest.mark.parametrize("case", ["fuzz-21-voc-height-text", "fuzz-23-voc-box-infinite"])
def test_cases_write_nothing(case, tmp_path, voc):
    root = voc / "VOCdevkit" / "VOC2007"
    text = (FIXTURES / "cases" / case / "Annotations" / "000001.xml").read_text()
    (root / "Annotations" / "000001.xml").write_text(text)
    with pytest.raises(DataError, match="000001.xml.*(height|ymax)"):
        write_voc(tmp_path / "out" / "o.json", root, "test", vocabulary("voc").names)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["image", "1a", "-4", "2008-000001", "٣", "9" * 17, "9" * 5000, "_", "../000001"])
def test_names_that_are_no_ids_are_refused(voc, name):
    folder = voc / "VOCdevkit" / "VOC2007"
    (folder / "ImageSets" / "Main" / "test.txt").write_text(f"000001\n000004\n{name}\n")
    with pytest.raises(DataError, match="test.txt: .* is not a name of Pascal VOC"):
        voc_annotations(folder, "test", vocabulary("voc").names)


def test_names_that_come_twice(voc, caplog):
    folder = voc / "VOCdevkit" / "VOC2007"
    names = folder / "ImageSets" / "Main" / "test.txt"
    names.write_text("000001\n000004\n000001\n")
    assert [image["id"] for image in voc_annotations(folder, "test", vocabulary("voc").names)["images"]] == [1, 4]
    assert "1 names come twice" in caplog.text
    names.write_text("000001\n000004\n0000_01\n")
    with pytest.raises(DataError, match="'0000_01' and '000001' are both image 1"):
        voc_annotations(folder, "test", vocabulary("voc").names)


def test_lists_that_are_no_text_are_refused(voc):
    folder = voc / "VOCdevkit" / "VOC2007"
    for content in (b"\xff\xfe0\x00", b"caf\xe9", b"\x1f\x8b broken"):
        (folder / "ImageSets" / "Main" / "test.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"test\.txt"):
            voc_annotations(folder, "test", vocabulary("voc").names)
    (folder / "ImageSets" / "Main" / "test.txt").write_bytes("\ufeff000001\n".encode())
    assert voc_annotations(folder, "test", vocabulary("voc").names)["images"][0]["id"] == 1
