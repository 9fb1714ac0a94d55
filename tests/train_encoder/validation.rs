//! What becomes of a run whose validation meets what it cannot read, or that leaves its folder half full.

use std::fs;

use super::{train, with};
use crate::support::{World, refuse, refused, replace, run, succeed};

/// A dataset with a mention to validate with that has an image of its own; its bytes.
fn with_own_image() -> (World, Vec<u8>) {
    let world = World::new();
    let image = fs::read(world.path("data/images/pink-box.png")).unwrap();
    fs::write(world.path("data/images/own.png"), &image).unwrap();
    let mut mentions = world.read_lines("data/valid.jsonl");
    mentions[0]["image"] = "images/own.png".into();
    world.write_lines("data/valid.jsonl", &mentions);
    (world, image)
}

#[test]
fn an_image_that_cannot_be_read_loses_no_epoch() {
    let (world, image) = with_own_image();
    let args = |out: &str| replace(train(&world, out), "--epochs", "2");
    succeed(&args("straight"));
    // Its header is whole, so that it is found when it is decoded.
    fs::write(world.path("data/images/own.png"), &image[..60]).unwrap();
    let output = run(&args("broken"));
    refused(&output, &["own.png", "the validation failed, but step", "--resume goes on"]);
    assert!(world.path("broken/last.safetensors").exists() && !world.path("broken/best.safetensors").exists());

    let output = run(&with(&args("skipped"), &["--skip-bad"]));
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = "own.png: ";
    assert!(output.status.success() && errors.matches(said).count() == 1, "once, not each epoch: {errors}");
    assert!(errors.contains("left out 1 images that cannot be read"), "{errors}");

    fs::write(world.path("data/images/own.png"), &image).unwrap();
    succeed(&with(&args("broken"), &["--resume"]));
    for name in ["last.safetensors", "best.safetensors", "encoder/model.safetensors"] {
        let [straight, broken] = ["straight", "broken"].map(|out| fs::read(world.path(out).join(name)).unwrap());
        assert!(straight == broken, "{name} differs");
    }
}

#[test]
fn a_run_that_was_stopped_before_its_first_checkpoint_starts_again() {
    let world = World::new();
    let args = replace(train(&world, "run"), "--epochs", "1");
    succeed(&args);
    // As a full disk or a kill leaves it between the epoch's files.
    fs::remove_file(world.path("run/last.safetensors")).unwrap();
    refuse(&with(&args, &["--resume"]), &["holds no last.safetensors", "starts again without --resume"]);
    succeed(&args);
    assert!(world.path("run/last.safetensors").exists() && world.path("run/encoder/model.safetensors").exists());
}
