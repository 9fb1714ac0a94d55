//! Chat templates against what transformers renders (tests/fixtures/llama/make.py).

use fissfuse::llama::{ChatTemplate, Message};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::llama::{draw, fixture};
use crate::support::{refuse, succeed};

#[test]
fn chat_templates_read_as_in_hugging_face() {
    let text = std::fs::read_to_string(fixture("templates.json")).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let message = |m: &Value| Message { role: text(&m["role"]), content: text(&m["content"]) };
    let messages: Vec<Message> = fixture["messages"].as_array().unwrap().iter().map(message).collect();
    for case in fixture["cases"].as_array().unwrap() {
        let folder = tempdir().unwrap();
        let mut settings = fixture["tokens"].clone();
        settings["chat_template"] = case["template"].clone();
        std::fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        let template = ChatTemplate::open(folder.path()).unwrap().unwrap();
        assert_eq!(template.render(&messages, true).unwrap(), text(&case["rendered"]), "{}", case["name"]);
    }
    let folder = tempdir().unwrap();
    assert!(ChatTemplate::open(folder.path()).unwrap().is_none());
    let write = |text: &str| std::fs::write(folder.path().join("chat_template.jinja"), text).unwrap();
    write("{{ raise_exception('Only users!') }}");
    let refused = ChatTemplate::open(folder.path()).unwrap().unwrap().render(&messages, true).unwrap_err();
    assert!(
        refused.to_string().contains("chat_template.jinja: chat template: ")
            && refused.to_string().contains("Only users!")
    );
    write("{{ strftime_now('%Y') }}");
    let year = ChatTemplate::open(folder.path()).unwrap().unwrap().render(&messages, true).unwrap();
    assert!(year.parse::<u32>().unwrap() > 2024);
    write("{% if");
    assert!(ChatTemplate::open(folder.path()).is_err());
    // What transformers always passes, and the marks of training, which mean nothing here.
    for (text, rendered) in [
        ("{% if tools is not none %}TOOLS {% endif %}hi", "hi"),
        ("{% if tools is not none and tools|length > 0 %}TOOLS {% endif %}hi", "hi"),
        ("{% if documents is none %}NODOCS {% endif %}hi", "NODOCS hi"),
        ("{% generation %}\nhi\n{% endgeneration %}\n!", "hi\n!"),
        ("a  {%- generation -%}  hi  {%- endgeneration -%}  b", "ahib"),
        ("{% for m in messages[:1] %}{%generation%}{{ 'hi' }}{%endgeneration%}{% endfor %}", "hi"),
    ] {
        write(text);
        let template = ChatTemplate::open(folder.path()).unwrap().unwrap();
        assert_eq!(template.render(&messages, true).unwrap(), rendered, "{text}");
    }
    for (text, says) in [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{{ messages | tojson(indent=9999999999999) }}", "an indent may be 100 at most"),
    ] {
        write(text);
        let refused = ChatTemplate::open(folder.path()).unwrap().unwrap().render(&messages, true);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("chat_template.jinja: chat template:") && refused.contains(says), "{refused}");
    }
    // Named templates: the default counts. Special tokens may be objects.
    std::fs::write(folder.path().join("tokenizer_config.json"), json!({"chat_template": "other"}).to_string()).unwrap();
    let two = ChatTemplate::open(folder.path()).err().unwrap().to_string();
    assert!(two.contains("disagrees with `chat_template` of tokenizer_config.json"), "{two}");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let named = json!({"bos_token": {"content": "<b>"},
        "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ bos_token }}yes"}]});
    std::fs::write(folder.path().join("tokenizer_config.json"), named.to_string()).unwrap();
    assert_eq!(ChatTemplate::open(folder.path()).unwrap().unwrap().render(&messages, true).unwrap(), "<b>yes");
}

#[test]
fn a_template_that_cannot_be_read_is_a_matter_of_chats_alone() {
    let folder = draw("multi-head");
    std::fs::write(folder.path().join("chat_template.jinja"), "{% unknown %}").unwrap();
    let model = folder.path().to_str().unwrap();
    let ask = ["llm", "--device", "cpu", "--model", model, "--max-new-tokens", "1", "--prompt", "!!"];
    succeed(&ask);
    refuse(&[&ask[..], &["--chat"]].concat(), &["chat_template.jinja: chat template: ", "unknown"]);
}
