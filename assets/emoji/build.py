"""Builds the demo's knowledge base from Debian's packages: glyphs.webp (an atlas of bitmaps) and entities.jsonl.

    apt-get download fonts-noto-color-emoji unicode-cldr-core unicode-data
    for f in *.deb; do dpkg -x "$f" root; done
    python3 build.py --root root          # needs fonttools and pillow

Takes every emoji of one code point (variation selectors aside) that has a bitmap in Noto Color Emoji, an English
short name and keywords in CLDR, and a group in Unicode's emoji-test.txt. Line i of entities.jsonl describes tile i
of the atlas, which has COLUMNS tiles of TILE x TILE pixels in a row.
"""
import argparse
import io
import json
import pathlib
import xml.etree.ElementTree as ElementTree

from fontTools.ttLib import TTFont
from PIL import Image

TILE, COLUMNS, QUALITY = 64, 32, 90


def groups(path):
    """code point -> (group, subgroup), in the order of the file"""
    found, group, subgroup = {}, "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.partition(":")[2].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.partition(":")[2].strip().replace("-", " ")
        elif line and not line.startswith("#"):
            points = [p for p in line.partition(";")[0].split() if p != "FE0F"]
            if len(points) == 1:
                found.setdefault(int(points[0], 16), (group, subgroup))
    return found


def annotations(path):
    """code point -> short name, code point -> keywords"""
    names, keywords = {}, {}
    for a in ElementTree.parse(path).getroot().iter("annotation"):
        points = [c for c in a.get("cp") if c != "\ufe0f"]
        if len(points) == 1:
            point = ord(points[0])
            if a.get("type") == "tts":
                names[point] = a.text.strip()
            else:
                keywords[point] = [k.strip() for k in a.text.split("|")]
    return names, keywords


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--root", type=pathlib.Path, required=True, help="where the packages were unpacked")
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    args = ap.parse_args()
    share = args.root / "usr/share"
    names, keywords = annotations(share / "unicode/cldr/common/annotations/en.xml")
    font = TTFont(share / "fonts/truetype/noto/NotoColorEmoji.ttf")
    glyph_of, bitmaps = font.getBestCmap(), font["CBDT"].strikeData[0]

    entities, tiles = [], []
    for point, (group, subgroup) in groups(share / "unicode/emoji/emoji-test.txt").items():
        bitmap = bitmaps.get(glyph_of.get(point))
        # Components (skin tones, hair) are parts of emoji, not emoji.
        if bitmap is None or point not in names or point not in keywords or group == "Component":
            continue
        glyph = Image.open(io.BytesIO(bitmap.imageData)).convert("RGBA")
        glyph.thumbnail((TILE, TILE), Image.LANCZOS)
        tile = Image.new("RGBA", (TILE, TILE))
        tile.paste(glyph, ((TILE - glyph.width) // 2, (TILE - glyph.height) // 2))
        tiles.append(tile)
        entities.append({"qid": f"U+{point:04X}", "name": names[point],
                         "keywords": [k for k in keywords[point] if k != names[point]],
                         "group": group, "subgroup": subgroup})

    atlas = Image.new("RGBA", (TILE * COLUMNS, TILE * -(-len(tiles) // COLUMNS)))
    for i, tile in enumerate(tiles):
        atlas.paste(tile, (i % COLUMNS * TILE, i // COLUMNS * TILE))
    atlas.save(args.out / "glyphs.webp", quality=QUALITY, method=6)
    with open(args.out / "entities.jsonl", "w", encoding="utf-8") as out:
        for entity in entities:
            out.write(json.dumps(entity, ensure_ascii=False) + "\n")
    print(len(entities), "entities")


if __name__ == "__main__":
    main()
