//! Lists of an index that is mapped into memory.

use std::fs;

use super::*;

#[test]
fn lists_of_a_mapped_index_are_those_of_a_scan() {
    let world = World::trained();
    let file = world.path("kb.usearch");
    let place: &'static str = format!("usearch:{}", file.display()).leak();
    refuse(&eval(world, "never", place, "3"), &["kb.usearch: is not there", "index push"]);
    assert!(succeed(&push(world, place)).contains("12 vectors of 48 numbers"));
    assert!(succeed(&push(world, place)).contains("already"));
    succeed(&[&eval(world, "scan-of-12", "scan", "12")[..], &["--min-recall", "0"]].concat());
    let printed = succeed(&eval(world, "usearch-of-12", place, "12"));
    assert!(printed.contains("it holds 100.00 %"), "{printed}");
    assert_eq!(metrics(world, "usearch-of-12")["mean"], metrics(world, "scan-of-12")["mean"]);
    // Codes of 8 bits may take one of nearly equal entities for another.
    let printed = succeed(&[&eval(world, "usearch-of-5", place, "5")[..], &["--min-recall", "0.8"]].concat());
    assert!(printed.contains("of the entities that a scan in f32 lists"), "{printed}");
    // Cut off, changed, of something else, of another model.
    let whole = fs::read(&file).unwrap();
    let mut bent = whole.clone();
    bent[200] ^= 1;
    for (bytes, says) in [
        (&whole[..whole.len() - 1], "or not all of it"),
        (&whole[..100], "or not all of it"),
        (&bent[..], "its checksum differs"),
        (b"hello", "is no index that `fissfuse index push` wrote"),
    ] {
        fs::write(world.path("bad.usearch"), bytes).unwrap();
        refuse(&eval(world, "never", format!("usearch:{}", world.arg("bad.usearch")).leak(), "3"), &[says]);
    }
    refuse(&push(world, format!("usearch:{}", world.arg("bad.usearch")).leak()), &["is no index"]);
    assert_eq!(fs::read(world.path("bad.usearch")).unwrap(), b"hello");
    // One that is not what was written is written anew.
    fs::write(world.path("bad.usearch"), &bent).unwrap();
    let bad: &'static str = format!("usearch:{}", world.arg("bad.usearch")).leak();
    assert!(succeed(&push(world, bad)).contains("12 vectors of 48 numbers"));
    succeed(&[&["--threads", "7"], &eval(world, "again", bad, "12")[..]].concat());
    let other = world.copy();
    other.change_line("data/entities.jsonl", 3, |entity| entity["image"] = Value::Null);
    refuse(&push(&other, place), &["holds an index of another knowledge base", "--replace"]);
    refuse(&eval(&other, "never", place, "3"), &["holds an index of another knowledge base"]);
    refuse(&push(world, "usearch:/nowhere/kb"), &["/nowhere"]);
    assert_eq!(fs::read(&file).unwrap(), whole);
    let left: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".tmp")), "{left:?}");
}
