//! The language model of `fissfuse rerank`: one that is opened, or a server that is called.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, arithmetic_of, describe};
use fissfuse::kar::endpoint::{Endpoint, EndpointSettings};
use fissfuse::kar::llama::{Batching, Decoder};
use fissfuse::kar::model::LanguageModel;
use fissfuse::llama::Precision;
use serde_json::{Map, Value};

use super::common::at_least_one;

/// What is said where a model is to be asked and none is named.
const NONE_GIVEN: &str = "no language model is given: add --llm DIR, or --endpoint URL and --model NAME";

// Clap asks for no required flag that conflicts with a given one: flags that require --endpoint refuse --llm themselves.
/// Which model is asked, and how it is reached.
#[derive(clap::Args)]
pub struct LanguageModelArgs {
    /// Hugging Face directory or GGUF file of a Llama.
    #[arg(long, value_name = "MODEL", conflicts_with = "endpoint")]
    pub llm: Option<PathBuf>,

    /// Keep the Llama's weights in this [default: as in its files].
    #[arg(long, value_enum, conflicts_with = "endpoint")]
    precision: Option<Precision>,

    /// Ask the Llama without a chat template: it is no chat model.
    #[arg(long, conflicts_with = "endpoint")]
    plain: bool,

    /// Most tokens that go through the Llama together.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Batching::default().tokens,
        value_parser = at_least_one(),
        conflicts_with = "endpoint"
    )]
    batch_tokens: usize,

    /// Base URL of a server with OpenAI's chat completions, such as http://localhost:8000/v1.
    #[arg(long, value_name = "URL", requires = "model")]
    endpoint: Option<String>,

    /// The model's name on that server.
    #[arg(long, value_name = "NAME", requires = "endpoint", conflicts_with = "llm")]
    model: Option<String>,

    /// Environment variable that holds the server's key, if it wants one.
    #[arg(
        long,
        value_name = "VARIABLE",
        default_value = "OPENAI_API_KEY",
        requires = "endpoint",
        conflicts_with = "llm"
    )]
    api_key_env: String,

    /// Questions that the server is asked at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = threads(), requires = "endpoint", conflicts_with = "llm")]
    concurrency: usize,

    /// JSON object that is merged into each request, such as '{"reasoning_effort": "low"}'; null takes a field out.
    #[arg(long, value_name = "JSON", requires = "endpoint", conflicts_with = "llm")]
    body: Option<String>,

    /// Further header of each request, such as 'X-Team: linking'; may be given again.
    #[arg(long = "header", value_name = "NAME: VALUE", requires = "endpoint", conflicts_with = "llm")]
    headers: Vec<String>,

    /// Certificates (PEM) of the authorities by which the server is believed [default: SSL_CERT_FILE, else Mozilla's].
    #[arg(long, value_name = "FILE", requires = "endpoint", conflicts_with = "llm")]
    ca_file: Option<PathBuf>,

    /// Seconds that the server may take for an answer, a day at most.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        requires = "endpoint", conflicts_with = "llm"
    )]
    timeout: u64,

    /// Calls after one that failed, each after twice the wait of the one before.
    #[arg(long, value_name = "N", default_value_t = 6, requires = "endpoint", conflicts_with = "llm")]
    retries: u32,
}

/// A language model, and where it computes.
pub struct Opened {
    pub model: Box<dyn LanguageModel>,
    /// In words.
    pub device: String,
    /// What decides about the last bits of its answers.
    pub arithmetic: String,
}

impl LanguageModelArgs {
    /// Whether there is a model to ask.
    pub fn is_given(&self) -> bool {
        self.llm.is_some() || self.endpoint.is_some()
    }

    /// The file of certificates that is to be believed, by the flag or by the variable that other programs go by.
    pub fn authorities(&self) -> Option<PathBuf> {
        let secure = self.endpoint.as_ref().is_some_and(|url| url.starts_with("https"));
        let variable =
            || std::env::var_os("SSL_CERT_FILE").filter(|path| secure && !path.is_empty()).map(PathBuf::from);
        self.ca_file.clone().or_else(variable)
    }

    /// How to ask the server, if one is asked. Read here and not by the parser of flags, whose errors repeat what was given,
    /// and that may be a secret.
    pub fn endpoint(&self) -> anyhow::Result<Option<EndpointSettings>> {
        let (Some(url), Some(model)) = (&self.endpoint, &self.model) else { return Ok(None) };
        Ok(Some(EndpointSettings {
            url: url.clone(),
            model: model.clone(),
            key: std::env::var(&self.api_key_env).ok().map(|key| key.trim().to_string()),
            concurrency: self.concurrency,
            timeout: Duration::from_secs(self.timeout),
            retries: self.retries,
            backoff: Duration::from_secs(1),
            body: self.body.as_deref().map(object).transpose()?.unwrap_or_default(),
            headers: self.headers.iter().map(|text| header(text)).collect::<anyhow::Result<_>>()?,
            authorities: self.authorities(),
        }))
    }

    /// Opens the model, a Llama on this device; says where it computes.
    pub fn open(&self, endpoint: Option<Endpoint>, device: DeviceChoice) -> anyhow::Result<Opened> {
        match (endpoint, &self.llm) {
            (Some(endpoint), _) => {
                Ok(Opened { model: Box::new(endpoint), device: "endpoint".into(), arithmetic: "endpoint".into() })
            }
            (None, Some(folder)) => self.llama(folder, device),
            (None, None) => anyhow::bail!(NONE_GIVEN),
        }
    }

    /// Which model the Llama in a folder is, once it is opened.
    pub fn identity(&self, folder: &Path) -> anyhow::Result<String> {
        Ok(Decoder::identity_of(folder, self.precision, self.plain)?)
    }

    /// Opens the Llama in a folder; says where it computes.
    pub fn llama(&self, folder: &Path, device: DeviceChoice) -> anyhow::Result<Opened> {
        let gpu = device.open(Arithmetic::default())?;
        let batching = Batching { tokens: self.batch_tokens, ..Batching::default() };
        let decoder = Decoder::open(folder, self.precision, gpu.as_ref(), self.plain, batching)?;
        let (device, arithmetic) = (describe(gpu.as_ref()), arithmetic_of(gpu.as_ref()));
        Ok(Opened { model: Box::new(decoder), device, arithmetic })
    }
}

/// Parses counts of threads that may wait for a server, each for an answer of its own.
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

/// Parses a JSON object; it may hold a secret and is not repeated.
fn object(text: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => anyhow::bail!("--body: is no JSON object; give one like '{{\"top_k\": 1}}'"),
        Err(e) => anyhow::bail!("--body: is no JSON: {e}"),
    }
}

/// Parses a header; it may be a secret and is not repeated.
fn header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once(':').context("--header: has no colon; give one like 'X-Team: linking'")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}
