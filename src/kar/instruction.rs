//! Instructions (Fig. 3 of the paper): what a model is asked about a mention and its first K candidates.

use std::path::{Path, PathBuf};

use minijinja::{Environment, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::mention::{cut, marked};
use crate::data::{Entity, Mention};
use crate::error::{Error, Result};
use crate::{files, template};

/// Most candidates that can be asked about: one per letter.
pub const MOST_OPTIONS: usize = 26;

/// Stands between the parts of a template, alone in its line.
const SEPARATOR: &str = "---";

/// What is asked about the first K candidates (section 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Which of them fits; it moves to the front and the others keep their order.
    #[default]
    SelectOne,
    /// Their order.
    RankTopK,
}

impl Strategy {
    fn template(self) -> &'static str {
        match self {
            Strategy::SelectOne => include_str!("templates/select-one.txt"),
            Strategy::RankTopK => include_str!("templates/rank-top-k.txt"),
        }
    }
}

/// The letter of the option at this position.
pub fn letter(position: usize) -> char {
    char::from(b'A' + (position % MOST_OPTIONS) as u8)
}

/// What a model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What it is told beforehand; may be empty.
    pub system: String,
    /// The question.
    pub user: String,
    /// How its answer begins, for models that can be made to go on from there; may be empty.
    pub reply: String,
}

impl Prompt {
    /// Tells one prompt from another.
    pub fn key(&self) -> String {
        let text = [self.system.as_str(), &self.user, &self.reply].join("\0");
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }
}

/// How long the parts of an instruction may get. Words of scripts without spaces count as eight characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Most words of a candidate's description.
    pub description_words: usize,
    /// Most words of the sentence, which is cut around the mention.
    pub sentence_words: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { description_words: 60, sentence_words: 120 }
    }
}

/// The text of an instruction with places for mention and candidates (docs/kar.md).
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// System message, question, beginning of the answer.
    parts: [String; 3],
    origin: PathBuf,
}

/// A candidate as templates see it.
#[derive(Serialize)]
struct Shown<'a> {
    letter: char,
    qid: &'a str,
    name: String,
    description: String,
    /// `name: description`, or the name alone.
    label: String,
}

impl<'a> Shown<'a> {
    fn new(position: usize, entity: &'a Entity, budget: Budget) -> Shown<'a> {
        let [name, description] = [&entity.name, &entity.description].map(|t| cut(t, budget.description_words));
        let label = if description.is_empty() { name.clone() } else { format!("{name}: {description}") };
        Shown { letter: letter(position), qid: &entity.qid, name, description, label }
    }
}

impl Template {
    /// The built-in template of a strategy.
    pub fn built_in(strategy: Strategy) -> Result<Template> {
        Template::new(strategy.template(), Path::new("built-in template"))
    }

    /// Reads a template.
    pub fn read(path: &Path) -> Result<Template> {
        Template::new(&files::read_text_or_stream(path)?, path)
    }

    fn new(text: &str, origin: &Path) -> Result<Template> {
        let mut environment = template::environment();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        let lines: Vec<&str> = text.lines().collect();
        let parts: Vec<String> = lines.split(|l| l.trim_end() == SEPARATOR).map(|p| p.join("\n")).collect();
        let parts = match <[String; 3]>::try_from(parts) {
            Ok(parts) => parts,
            Err(parts) => {
                let reason = format!(
                    "has {} parts; a template has three, separated by lines of `{SEPARATOR}`: system message, question, \
                     beginning of the answer",
                    parts.len()
                );
                return Err(Error::file(origin, reason));
            }
        };
        let template = Template { environment, parts, origin: origin.to_path_buf() };
        template.check()?;
        Ok(template)
    }

    /// Renders an example and wants to find in it what a model must see.
    fn check(&self) -> Result<()> {
        let example = |n: usize| Entity {
            qid: format!("Q{n}"),
            name: format!("name-of-{n}"),
            description: format!("description-of-{n}"),
            image: None,
        };
        let entities = [example(1), example(2)];
        let mention = Mention {
            id: "m".into(),
            mention: "the-mention".into(),
            sentence: "About the-mention.".into(),
            image: None,
            candidates: None,
            gold: None,
        };
        let prompt = self.render(&mention, &entities.iter().collect::<Vec<_>>(), Budget::default())?;
        let needed = ["the-mention", "name-of-1", "name-of-2"];
        match needed.into_iter().find(|what| !prompt.user.contains(what)) {
            None => Ok(()),
            Some("the-mention") => {
                Err(Error::file(&self.origin, "its question shows neither `sentence` nor `mention`"))
            }
            Some(_) => Err(Error::file(&self.origin, "its question does not show the `candidates`")),
        }
    }

    /// The template's text, for checksums.
    pub fn text(&self) -> String {
        self.parts.join(&format!("\n{SEPARATOR}\n"))
    }

    /// The instruction about a mention and these candidates, which get the letters A, B, ... in this order.
    pub fn render(&self, mention: &Mention, candidates: &[&Entity], budget: Budget) -> Result<Prompt> {
        let letters: Vec<String> = (0..candidates.len()).map(|i| letter(i).to_string()).collect();
        let context = context! {
            mention => cut(&mention.mention, budget.sentence_words),
            sentence => marked(&mention.sentence, &mention.mention, budget.sentence_words),
            candidates => candidates.iter().enumerate().map(|(i, e)| Shown::new(i, e, budget)).collect::<Vec<_>>(),
            letters => in_words(&letters),
            k => candidates.len(),
        };
        let part = |name: &str, text: &str| {
            self.environment.render_named_str(name, text, &context).map(|t| t.trim().to_string()).map_err(|e| {
                let line = e.line().map(|line| format!(", line {line}")).unwrap_or_default();
                Error::file(&self.origin, format!("{name}{line}: {e}; docs/kar.md lists what a template can use"))
            })
        };
        let [system, user, reply] = &self.parts;
        Ok(Prompt {
            system: part("system message", system)?,
            user: part("question", user)?,
            reply: part("beginning of the answer", reply)?,
        })
    }
}

/// `A, B or C`.
fn in_words(letters: &[String]) -> String {
    match letters {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(name: &str, description: &str) -> Entity {
        Entity { qid: "Q".into(), name: name.into(), description: description.into(), image: None }
    }

    fn mention() -> Mention {
        let (mention, sentence) = ("Hussein".into(), "King Hussein of Jordan.".into());
        Mention { id: "m".into(), mention, sentence, image: None, candidates: None, gold: None }
    }

    #[test]
    fn the_built_in_templates_say_everything_in_order() {
        let entities = [entity("Hussein bin Talal", "king\nof \"Jordan\" & <more>"), entity("Saddam Hussein", "")];
        let entities: Vec<&Entity> = entities.iter().collect();
        for (strategy, asks) in [(Strategy::SelectOne, "one letter: A or B."), (Strategy::RankTopK, "all 2 letters")] {
            let prompt =
                Template::built_in(strategy).unwrap().render(&mention(), &entities, Budget::default()).unwrap();
            let mut rest = prompt.user.as_str();
            for part in [
                "[[ and ]]",
                "\nText: King [[Hussein]] of Jordan.\nMention: Hussein\n\nEntities:\n",
                "A. Hussein bin Talal: king of \"Jordan\" & <more>\nB. Saddam Hussein\n\n",
                asks,
            ] {
                let at = rest.find(part).unwrap_or_else(|| panic!("{rest:?} lacks {part:?}"));
                rest = &rest[at + part.len()..];
            }
            assert!(!prompt.system.is_empty() && prompt.reply.ends_with(':'));
        }
    }

    #[test]
    fn the_fixed_text_stands_before_all_that_differs() {
        let template = Template::built_in(Strategy::SelectOne).unwrap();
        let [one, two] = [entity("one", "x"), entity("two", "y")];
        let other = Mention { mention: "other".into(), sentence: "An other.".into(), ..mention() };
        let user = |m: &Mention, e: &[&Entity]| template.render(m, e, Budget::default()).unwrap().user;
        let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let prompts = [user(&mention(), &[&one, &two]), user(&mention(), &[&two, &one]), user(&other, &[&one])];
        assert_eq!(common(&prompts[0], &prompts[2]), prompts[0].find("King").unwrap());
        assert_eq!(common(&prompts[0], &prompts[1]), prompts[0].find("one: x").unwrap());
    }

    #[test]
    fn a_broken_template_is_refused_with_its_reason() {
        let refused = |text: &str| Template::new(text, Path::new("t.txt")).unwrap_err().to_string();
        assert!(refused("{{ mention }}").contains("t.txt: has 1 parts"));
        assert!(
            refused("---\n{{ sentence }} {{ candidates[0].name }}\n---\n").contains("does not show the `candidates`")
        );
        assert!(
            refused("---\n{% for c in candidates %}{{ c.name }}{% endfor %}\n---\n").contains("neither `sentence`")
        );
        let unknown = refused("---\n\n{{ sentense }}\n---\n");
        assert!(unknown.contains("question, line 2") && unknown.contains("undefined"), "{unknown}");
        assert!(refused("---\n{% for %}\n---\n").contains("syntax error"));
        let good = "---\n{{ mention }}{% for c in candidates %}{{ c.name }}{% endfor %}\n---\n";
        assert_eq!(
            Template::new(good, Path::new("t.txt")).unwrap().render(&mention(), &[], Budget::default()).unwrap().reply,
            ""
        );
    }
}
