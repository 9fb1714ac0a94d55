//! Spans of the host's threads, from the crate `tracing`.

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::CString;
use std::fmt::Debug;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::ring::Track;
use super::{TARGET, lock, wants_spans, with};
use crate::device::nvtx;

/// Names of the threads that opened spans, by their numbers.
static THREADS: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// This thread's number, if it has one.
    static NUMBER: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Names of the threads.
pub(super) fn threads() -> Vec<String> {
    lock(&THREADS).clone()
}

fn thread_number() -> u32 {
    NUMBER.get().unwrap_or_else(|| {
        let mut threads = lock(&THREADS);
        let number = threads.len() as u32;
        threads.push(thread::current().name().map_or_else(|| format!("thread {number}"), String::from));
        NUMBER.set(Some(number));
        number
    })
}

/// What a program's subscriber is to have, for its traces: takes spans while somebody wants them, and nothing else.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Recorder.with_filter(Spans)
}

/// Lets spans through while somebody wants them.
struct Spans;

impl<S> Filter<S> for Spans {
    fn enabled(&self, metadata: &Metadata, _: &Context<S>) -> bool {
        wants_spans() && metadata.target() == TARGET
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if wants_spans() && metadata.target() == TARGET { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if wants_spans() { LevelFilter::INFO } else { LevelFilter::OFF })
    }
}

struct Recorder;

/// A span that has not ended.
struct Open {
    name: Cow<'static, str>,
    entered: Option<Instant>,
}

/// An operation's name and pass, from a span's fields.
#[derive(Default)]
struct Fields {
    name: String,
    pass: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => self.name = value.to_string(),
            "pass" => self.pass = value.to_string(),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes, id: &Id, context: Context<S>) {
        let Some(span) = context.span(id) else { return };
        let name = match attributes.fields().is_empty() {
            true => Cow::Borrowed(attributes.metadata().name()),
            false => {
                let mut fields = Fields::default();
                attributes.record(&mut fields);
                Cow::Owned(format!("{} {}", fields.name, fields.pass))
            }
        };
        span.extensions_mut().insert(Open { name, entered: None });
    }

    fn on_enter(&self, id: &Id, context: Context<S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            if let Some(ranges) = nvtx::ranges() {
                ranges.push(&CString::new(&*open.name).unwrap_or_default());
            }
            open.entered = Some(Instant::now());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<S>) {
        let end = Instant::now();
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(Open { name, entered: Some(start) }) = extensions.get_mut::<Open>() else { return };
        if let Some(ranges) = nvtx::ranges() {
            ranges.pop();
        }
        let track = Track::Host(thread_number());
        with(|taken| {
            let times = (taken.at(*start), taken.at(end));
            taken.ring.add(name, track, times, taken.ring.step());
        });
    }
}
