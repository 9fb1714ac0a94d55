//! The language models that an experiment asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::experiment::{self, Answer, Data, ExperimentFile, Question, Unopened};
use fissfuse::kar::Scoring;
use fissfuse::kar::endpoint::Endpoint;
use fissfuse::kar::model::LanguageModel;
use fissfuse::llama::Source;
use fissfuse::printable::quoted;
use indicatif::ProgressBar;

use super::Args;

/// What is said where a model is to be asked and none is given.
const NONE_GIVEN: &str = "no language model is given: needs --llm DIR, or --endpoint URL and --model NAME";

/// Fails if a language model that will be asked cannot be opened, as far as can be seen before anything is trained.
pub fn check_models(args: &Args, file: &ExperimentFile) -> anyhow::Result<()> {
    let folders = args.llms.iter().map(|(_, folder)| folder).chain(&args.model.llm);
    for folder in folders.filter(|_| !file.rerank.is_empty()) {
        Source::open(folder)?.config()?;
    }
    args.model.endpoint()?.map(Endpoint::new).transpose()?;
    Ok(())
}

/// The language models that were given, and which they are: their files are read for that once, however often it is asked.
pub struct Models<'a> {
    args: &'a Args,
    identities: RefCell<HashMap<PathBuf, String>>,
}

impl<'a> Models<'a> {
    /// Those of the flags.
    pub fn new(args: &'a Args) -> Models<'a> {
        Models { args, identities: RefCell::default() }
    }

    /// Asks about the rankings of a trial's folder, if that is this process's to do; without a model, takes the answers that are
    /// there. What a model fails at is said and ends nothing.
    pub fn ask(
        &self,
        question: &Question,
        folder: (&Path, bool),
        data: &Data,
        bar: &ProgressBar,
    ) -> anyhow::Result<Answer> {
        let given = self.of(question);
        let asked = match &given {
            Ok(model) => experiment::ask(question, folder, data, model, bar),
            Err(_) => experiment::answered(question, folder.0, None::<&Model>),
        };
        match asked {
            Ok(Some(asked)) => Ok(Answer::Asked(Box::new(asked))),
            Ok(None) => Ok(given.map_or_else(|none| Answer::Unasked(none.to_string()), |_| Answer::Elsewhere)),
            Err(error) => match error.downcast_ref::<fissfuse::Error>() {
                Some(fissfuse::Error::Stopped { .. }) => Err(error),
                _ => Ok(Answer::Failed(error.to_string())),
            },
        }
    }

    /// Fails if the answers about a trial's rankings are another model's or of other settings.
    pub fn expect_own(&self, question: &Question, folder: &Path) -> anyhow::Result<()> {
        experiment::expect_own(question, folder, self.of(question).ok().as_ref())
    }

    /// The one that is to be asked.
    fn of(&self, question: &Question) -> anyhow::Result<Model<'_>> {
        let named = |name: &String| {
            let found = self.args.llms.iter().find(|(named, _)| named == name);
            let folder = found.map(|(_, folder)| folder.as_path());
            folder.with_context(|| format!("no Llama is given for it (--named-llm {})", quoted(&format!("{name}=DIR"))))
        };
        let llama = question.llm.as_ref().map(named).transpose()?.or(self.args.model.llm.as_deref());
        anyhow::ensure!(llama.is_some() || self.args.model.is_given(), NONE_GIVEN);
        Ok(Model { models: self, llama })
    }
}

/// One of them: an own Llama, or a server's model.
struct Model<'a> {
    models: &'a Models<'a>,
    llama: Option<&'a Path>,
}

impl Model<'_> {
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let settings = self.models.args.model.endpoint()?.context(NONE_GIVEN)?;
        Ok(Endpoint::new(settings)?)
    }
}

impl Unopened for Model<'_> {
    type Error = anyhow::Error;

    fn scoring(&self) -> Scoring {
        if self.llama.is_some() { Scoring::Letters } else { Scoring::Generate }
    }

    fn identity(&self) -> anyhow::Result<String> {
        let Some(folder) = self.llama else { return Ok(self.endpoint()?.identity()) };
        let known = self.models.identities.borrow().get(folder).cloned();
        match known {
            Some(identity) => Ok(identity),
            None => {
                let identity = self.models.args.model.identity(folder)?;
                self.models.identities.borrow_mut().insert(folder.to_path_buf(), identity.clone());
                Ok(identity)
            }
        }
    }

    fn open(&self) -> anyhow::Result<Box<dyn LanguageModel>> {
        let device = self.models.args.device.first().copied().unwrap_or_default();
        match self.llama {
            Some(folder) => Ok(self.models.args.model.llama(folder, device)?.model),
            None => Ok(Box::new(self.endpoint()?)),
        }
    }
}
