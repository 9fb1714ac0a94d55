//! KGMEL's regrouped layout.

use fissfuse::data::Split;
use fissfuse::data::import::{Format, Settings};
use serde_json::{Value, json};

use super::{Source, note};
use crate::support::{run, succeed};

const RECORDS: &str = "data/dataset/WikiDiverse.json";
const SPLITS: &str = "data/dataset/mapping/ids_split_mappings.json";

fn record(id: Value, image: &str, links: &[(&str, &str, &str)]) -> Value {
    let column = |of: fn(&(&str, &str, &str)) -> String| links.iter().map(of).collect::<Vec<_>>();
    json!({"id": id, "sentence": "Students outside the UK parliament listen to AC/DC.", "imgPath": image,
           "mention": column(|l| l.0.into()), "entity": column(|l| l.1.into()), "answer": column(|l| l.2.into()),
           "img-url": "https://upload.wikimedia.org/x.jpg"})
}

/// The repository with one dataset; the validation split is not there.
fn source() -> Source {
    let source = Source::new();
    source
        .json(
            RECORDS,
            json!([
                record(
                    json!(0),
                    "mention_0.jpg",
                    &[("UK", "United Kingdom", "Q145"), ("parliament", "Parliament", "Q11010")]
                ),
                record(json!("1"), "a/mention_1.b.png", &[("AC/DC", "AC%2FDC_%28band%29", "Q27593")]),
                record(
                    json!(2),
                    "mention_2.jpg",
                    &[("UK", "Great Britain", "Q145"), ("AC/DC", "AC/DC", "Q27593"), ("UK", "UK", "nil")]
                ),
                record(json!(3), "gone.jpg", &[("UK", "United Kingdom", "Q145"), ("UK", "United Kingdom", "Q145")]),
                record(json!(4), "", &[("students", "Student", "Q48282")]),
                record(json!(5), "mention_0.jpg", &[("UK", "United Kingdom", "Q145")]),
            ]),
        )
        .json(
            SPLITS,
            json!({"RichpediaMEL": {"train": [0], "val": [], "test": []},
                   "WikiDiverse": {"train": [0, "1", 4, 4], "test": [2, 3, 99]}}),
        )
        .json("data/dataset/mapping/ids_blank_image.json", json!({"WikiDiverse": [2]}))
        .json("data/dataset/mapping/qids_candidate.json", json!({"WikiDiverse": ["Q11010", "Q145", "Q7", "Q145"]}))
        .write(
            "data/KB/QID2Label.tsv",
            "Q11010\tParliament of the UK\t\"the \"\"mother\"\" of parliaments\"\r\nQ145\tUnited Kingdom\tcountry\tin Europe\n\
             Q7\nQ145\tUnited Kingdom\tcountry\tin Europe\nQ1\tnobody\tlists it\n",
        )
        .picture("data/dataset/image/WikiDiverse/mention_0.jpg", 30)
        .picture("data/dataset/image/WikiDiverse/mention_1.jpg", 30)
        .picture("data/dataset/image/WikiDiverse/mention_2.jpg", 30)
        .picture("data/KB/image/Q145_0.jpg", 30);
    source
}

#[test]
fn records_become_mentions_of_their_splits() {
    let source = source();
    let (done, imports) = source.import(Format::Kgmel, "dst", Settings::default());
    let train = imports.mentions(Split::Train);
    assert_eq!(train.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["0-0", "0-1", "1", "4"]);
    let test = imports.mentions(Split::Test);
    assert_eq!(test.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["2-0", "2-1", "3-0", "3-1"]);
    assert!(!imports.dataset.has(Split::Valid) && train[0].candidates.is_none());
    let gold = |mention: &fissfuse::data::Mention| imports.qids(&[mention.gold.unwrap()])[0].to_string();
    assert_eq!(train.iter().map(gold).collect::<Vec<_>>(), ["Q145", "Q11010", "Q27593", "Q48282"]);
    // All mentions of a record have its image, named up to the first dot; a blank one counts as none.
    assert!(train[0].image.is_some() && train[0].image == train[1].image);
    assert!(train[2].image.as_deref().unwrap().ends_with("mention_1.jpg") && train[3].image.is_none());
    assert!(test.iter().all(|mention| mention.image.is_none()));
    assert_eq!((note(&done, "known to be blank"), note(&done, "mentions: image is missing")), (2, 2));
    // Entities are those of the list that have a name, then answers that it lacks.
    let qids: Vec<&str> = imports.dataset.entities().iter().map(|e| e.qid.as_str()).collect();
    assert_eq!(qids, ["Q11010", "Q145", "Q27593", "Q48282"]);
    let [parliament, country, band] = ["Q11010", "Q145", "Q27593"].map(|qid| imports.entity(qid));
    assert_eq!(parliament.description, "the \"mother\" of parliaments");
    assert_eq!((country.name.as_str(), country.description.as_str()), ("United Kingdom", "country in Europe"));
    assert_eq!((band.name.as_str(), band.description.as_str()), ("AC/DC (band)", ""));
    assert!(country.image.is_some() && parliament.image.is_none());
    for (what, count) in [
        ("without a name in QID2Label.tsv", 1),
        ("only the records of their mentions name", 2),
        ("otherwise than an earlier one", 1),
        ("NIL", 1),
        ("records of no split", 1),
        ("identifiers of splits without a record", 1),
    ] {
        assert_eq!(note(&done, what), count, "{what}");
    }
    assert_eq!(done.published.map(|p| p.name), Some("WikiDiverse"));
    // From the inner folder, and without the large files that are not in the repository.
    for file in ["dataset/mapping/qids_candidate.json", "KB/QID2Label.tsv"] {
        std::fs::remove_file(source.path("src/data").join(file)).unwrap();
    }
    let printed = succeed(&["import", "kgmel", source.arg("src/data/dataset"), source.arg("small")]);
    assert!(printed.contains("only the records of their mentions name: 4") && printed.contains("fissfuse candidates"));
}

#[test]
fn what_is_wrong_with_records_and_splits_is_named() {
    let source = source();
    let link = ("UK", "United Kingdom", "Q145");
    let good = record(json!(0), "", &[link]);
    source.json(RECORDS, json!([good, good]));
    source.refuse("kgmel", &["WikiDiverse.json:17:", "record `0` is there already"]);
    let mut uneven = good.clone();
    uneven["answer"] = json!(["Q145", "Q1"]);
    source.json(RECORDS, json!([uneven]));
    source.refuse("kgmel", &["WikiDiverse.json:2:", "1 mentions, 1 entities and 2 answers"]);
    let mut empty = good.clone();
    empty["id"] = json!(1);
    ["mention", "entity", "answer"].iter().for_each(|field| empty[field] = json!([]));
    source.json(RECORDS, json!([good, empty]));
    source.refuse("kgmel", &["WikiDiverse.json:17:", "0 mentions"]);

    source.json(RECORDS, json!([good, record(json!(1), "", &[link])]));
    source.json(SPLITS, json!({"WikiDiverse": {"train": [0, 1], "val": [0]}}));
    source.refuse("kgmel", &["ids_split_mappings.json", "record 0 of WikiDiverse is in train and in valid"]);
    let kept = ["import", "kgmel", source.arg("src"), source.arg("kept"), "--skip-bad"];
    assert!(run(&kept).status.success());
    let lines = std::fs::read_to_string(source.path("kept/train.jsonl")).unwrap();
    assert!(
        lines.lines().count() == 1
            && lines.contains("\"mention_id\":\"1\"")
            && !source.path("kept/valid.jsonl").exists()
    );

    source.json(SPLITS, json!({"WikiDiverse": {"dev": [], "practice": [1]}}));
    source.refuse("kgmel", &["ids_split_mappings.json", "no record of WikiDiverse under train, val or test"]);
    source.json(SPLITS, json!({"WikiMEL": {"train": [1]}}));
    source.refuse("kgmel", &["ids_split_mappings.json", "says nothing of WikiDiverse, but of WikiMEL"]);
    source.json(SPLITS, json!({"WikiDiverse": {"train": [7]}}));
    source.refuse("kgmel", &["dataset", "holds no mention of a record that a split names"]);
    source.json(SPLITS, json!({"WikiDiverse": {"train": [0, 1]}}));
    source.write("data/KB/QID2Label.tsv", "Q145\tUnited Kingdom\tcountry\nQ145\tUnited Kingdom\tislands\n");
    source.refuse("kgmel", &["QID2Label.tsv:2:", "`Q145` stands in an earlier line with other texts"]);
    source.refuse("mimic", &["mapping/ids_split_mappings.json", "`fissfuse import kgmel"]);
    source.write("data/KB/QID2Label.tsv", "");
    source.json("data/dataset/WikiMEL.json", json!([]));
    source.refuse("kgmel", &["dataset", "holds WikiMEL, WikiDiverse", "--dataset"]);
    succeed(&["import", "kgmel", source.arg("src"), source.arg("chosen"), "--dataset", "WikiDiverse"]);
    for file in [SPLITS, "data/dataset/WikiMEL.json"] {
        std::fs::remove_file(source.path("src").join(file)).unwrap();
    }
    source.refuse("kgmel", &["has no mapping/ids_split_mappings.json"]);
}
