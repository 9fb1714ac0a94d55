//! The language models that an experiment asks.

use std::path::Path;

use anyhow::Context;
use fissfuse::experiment::{self, Answer, Data, ExperimentFile, Question};
use fissfuse::kar::Scoring;
use fissfuse::kar::endpoint::Endpoint;
use fissfuse::kar::model::LanguageModel;
use fissfuse::llama::Source;
use indicatif::ProgressBar;

use super::Args;

/// What is said where a model is to be asked and none is given.
const NONE_GIVEN: &str = "no language model is given: needs --llm DIR, or --endpoint URL and --model NAME";

/// Whether a language model was given, by whatever flag.
pub fn gives_models(args: &Args) -> bool {
    args.model.is_given() || !args.llms.is_empty()
}

/// Fails if a language model that will be asked cannot be opened, as far as can be seen before anything is trained.
pub fn check_models(args: &Args, file: &ExperimentFile) -> anyhow::Result<()> {
    let folders = args.llms.iter().map(|(_, folder)| folder).chain(&args.model.llm);
    for folder in folders.filter(|_| !file.rerank.is_empty()) {
        Source::open(folder)?.config()?;
    }
    args.model.endpoint()?.map(Endpoint::new).transpose()?;
    Ok(())
}

/// Asks about the rankings of a trial's folder, if that is this process's to do. What a model fails at is said and ends
/// nothing.
pub fn ask(
    args: &Args,
    question: &Question,
    folder: (&Path, bool),
    data: &Data,
    bar: &ProgressBar,
) -> anyhow::Result<Answer> {
    match try_to_ask(args, question, folder, data, bar) {
        Ok(answer) => Ok(answer),
        Err(error) => match error.downcast_ref::<fissfuse::Error>() {
            Some(fissfuse::Error::Stopped { .. }) => Err(error),
            _ => Ok(Answer::Failed(error.to_string())),
        },
    }
}

fn try_to_ask(
    args: &Args,
    question: &Question,
    folder: (&Path, bool),
    data: &Data,
    bar: &ProgressBar,
) -> anyhow::Result<Answer> {
    let device = args.device.first().copied().unwrap_or_default();
    let named = |name: &String| {
        let found = args.llms.iter().find(|(named, _)| named == name);
        found.map(|(_, folder)| folder).with_context(|| format!("no Llama is given for it (--named-llm {name}=DIR)"))
    };
    let llama = question.llm.as_ref().map(named).transpose()?;
    anyhow::ensure!(llama.is_some() || args.model.is_given(), NONE_GIVEN);
    let own = llama.is_some() || args.model.llm.is_some();
    let scoring = if own { Scoring::Letters } else { Scoring::Generate };
    let open = || -> anyhow::Result<Box<dyn LanguageModel>> {
        let opened = match llama {
            Some(folder) => args.model.llama(folder, device)?,
            None => args.model.open(args.model.endpoint()?.map(Endpoint::new).transpose()?, device)?,
        };
        Ok(opened.model)
    };
    let asked = experiment::ask(question, folder, data, scoring, open, bar)?;
    Ok(asked.map_or(Answer::Elsewhere, |asked| Answer::Asked(Box::new(asked))))
}
