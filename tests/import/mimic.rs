//! MIMIC's cleaned layout.

use fissfuse::data::Split;
use fissfuse::data::import::{Format, Settings};
use serde_json::{Value, json};

use super::{Source, note};
use crate::support::succeed;

fn mimic(prefix: &str, images: &str) -> Source {
    let source = Source::new();
    let record = |id: Value, image: &str, answer: &str| {
        json!({"id": id, "sentence": "Gert Steegmans winning stage 3.", "mentions": "Gert Steegmans",
               "entities": "Gert Steegmans", "answer": answer, "imgPath": image})
    };
    source
        .json(&format!("{prefix}train.json"), json!([
            record(json!(106), "mention_54.jpg", "Q1"),
            record(json!("106"), "KVQAimgs/St._John.png", "Q2"),
            record(json!(7), "", "nil"),
            record(json!(8), "", "Q1"),
        ]))
        .json(&format!("{prefix}dev.json"), json!([record(json!(9), "gone.jpg", "Q1")]))
        .json("kb_entity.json", json!([
            {"id": 0, "qid": "Q1", "type": "entity", "entity_name": "Bj%C3%B6rk_G", "attr": "a singer", "desc": "brief", "image_list": ["none.jpg", "Q1.b.png"]},
            {"id": 1, "qid": "Q2", "type": "entity", "entity_name": "Q. Two", "attr": "", "image_list": []},
        ]))
        .write("qid2id.json", r#"{"Q1": 0, "Q2": 1}"#)
        .picture("kb_image/Q1.b.png", 30)
        .picture(&format!("{images}/mention_54.jpg"), 30)
        .picture(&format!("{images}/St.jpg"), 30);
    source
}

#[test]
fn mimic_with_numbers_for_ids_and_names_up_to_a_dot() {
    for (prefix, images, paper) in [
        ("WIKIMEL_", "mention_image", Some("WikiMEL")),
        ("RichpediaMEL_", "mention_images", None),
        ("wiki_diverse_", "mention_image", Some("WikiDiverse")),
    ] {
        let source = mimic(prefix, images);
        let (done, imports) = source.import(Format::Mimic, "dst", Settings::default());
        let train = imports.mentions(Split::Train);
        assert_eq!(train.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["106", "106-1", "8"]);
        assert_eq!((note(&done, "NIL"), note(&done, "mentions: image is missing")), (1, 1));
        assert!(train[0].image.is_some() && train[1].image.as_deref().unwrap().ends_with("St.jpg"));
        let singer = imports.entity("Q1");
        assert_eq!((singer.name.as_str(), singer.description.as_str()), ("Björk G", "a singer"));
        assert!(singer.image.as_deref().unwrap().ends_with("Q1.b.png"));
        assert_eq!(done.published.map(|p| p.name), paper);
        assert!(imports.dataset.has(Split::Valid) && !imports.dataset.has(Split::Test));
    }
}

#[test]
fn mimic_of_two_releases_is_refused() {
    let source = mimic("WIKIMEL_", "mention_image");
    source.write("qid2id.json", r#"{"Q1": 0, "Q2": 5}"#);
    source.refuse("mimic", &["kb_entity.json", "`Q2` has id 1 here and 5 in qid2id.json"]);
    source.write("qid2id.json", r#"{"Q1": 0, "Q2": 1, "Q3": 2}"#);
    source.refuse("mimic", &["lacks entity `Q3` of qid2id.json"]);
    source.write("qid2id.json", r#"{"Q1": 0, "Q2": 1}"#);
    let kb = |second: Value| json!([{"id": 0, "qid": "Q1", "entity_name": "One", "attr": "a"}, second]);
    source.json("kb_entity.json", kb(json!({"id": 0, "qid": "Q1", "entity_name": "One", "attr": "b"})));
    source.refuse("mimic", &["kb_entity.json:8:", "two different descriptions"]);
    source.json("kb_entity.json", kb(json!({"id": 1, "qid": "Q2", "entity_name": "Two"})));
    source.json(
        "WIKIMEL_train.json",
        json!([{"id": 1, "sentence": "A map.", "imgPath": "", "mention": ["A", "map"],
        "entity": ["A", "B"], "answer": ["Q1", "Q2"]}]),
    );
    source.refuse("mimic", &["WIKIMEL_train.json:2:", "`fissfuse import kgmel`"]);
}

#[test]
fn files_outside_the_source_are_taken_only_where_that_is_allowed() {
    let secret = |source: &Source| {
        image::RgbImage::new(30, 30).save(source.path("secret.png")).unwrap();
    };
    let named = |path: String| {
        let source = mimic("WIKIMEL_", "mention_image");
        secret(&source);
        let entity = |qid: &str, id: u32, list: Value| json!({"id": id, "qid": qid, "entity_name": qid, "attr": "", "image_list": list});
        source.json("kb_entity.json", json!([entity("Q1", 0, json!([path])), entity("Q2", 1, json!([]))]));
        source
    };
    let up = named("../../secret.png".into());
    let absolute = named(up.arg("secret.png").into());
    let linked = named("link.png".into());
    std::os::unix::fs::symlink(linked.path("secret.png"), linked.path("src/kb_image/link.png")).unwrap();
    for source in [&up, &absolute, &linked] {
        source.refuse("mimic", &["secret.png", "leads out of the source folder", "--allow-outside"]);
        let skip = ["import", "mimic", source.arg("src"), source.arg("skipped"), "--skip-bad"];
        assert!(succeed(&skip).contains("entities: image lies outside the source: 1 (Q1)"));
        let allowed = Settings { allow_outside: true, ..Settings::default() };
        assert!(source.import(Format::Mimic, "allowed", allowed).1.entity("Q1").image.is_some());
    }
    // A folder that the user names is no way out.
    let elsewhere = named("secret.png".into());
    let images = Settings { entity_images: Some(elsewhere.path("")), ..Settings::default() };
    assert!(elsewhere.import(Format::Mimic, "named", images).1.entity("Q1").image.is_some());
    // Nor may a file of texts be a link to elsewhere.
    let texts = mimic("WIKIMEL_", "mention_image");
    std::fs::rename(texts.path("src/kb_entity.json"), texts.path("elsewhere.json")).unwrap();
    std::os::unix::fs::symlink(texts.path("elsewhere.json"), texts.path("src/kb_entity.json")).unwrap();
    texts.refuse("mimic", &["kb_entity.json", "leads out of the source folder"]);
}
