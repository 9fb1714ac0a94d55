//! Jinja templates of models and users, which are foreign programs: they run with bounds.
//!
//! Bounded are the steps, how deep calls nest, what is written, and how long a text becomes by repetition (`x * n`, 100 MB, by
//! minijinja itself). Not bounded is the memory of texts that a template joins, indents or pads: one that doubles a text in a loop
//! takes what there is in some thirty steps, and minijinja calls nobody when it joins. A model's template must be trusted as
//! far as that.

use std::io::Write;

use minijinja::{Environment, Error, ErrorKind, Template, Value};

use crate::bytes::Bytes;

/// Most steps of a template. A conversation of a hundred turns takes some ten thousand.
const STEPS: u64 = 500_000;

/// How deep macros, blocks and loops may call each other.
const DEPTH: usize = 100;

/// Most bytes that a template may write.
const OUTPUT: usize = 16_000_000;

/// Of the thread that runs a template: room for lists as deeply nested as its steps can make them. Only what is used
/// takes memory.
const STACK: usize = 512 << 20;

/// An environment whose templates end.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(STEPS));
    environment.set_recursion_limit(DEPTH);
    environment
}

/// The text that a template of such an environment makes.
///
/// Fails if it takes too many steps, calls itself too deeply, or writes too much.
pub fn render(template: &Template, context: Value) -> Result<String, Error> {
    let run = || {
        let mut out = Bounded(Vec::new());
        template.render_captured_to(context, &mut out).map_err(explained)?;
        String::from_utf8(out.0).map_err(|_| Error::new(ErrorKind::WriteFailure, "wrote no text"))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK).spawn_scoped(scope, run);
        let thread =
            thread.map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::InvalidOperation, "ended without a result")))
    })
}

fn explained(error: Error) -> Error {
    match error.kind() {
        ErrorKind::OutOfFuel => {
            Error::new(ErrorKind::OutOfFuel, format!("takes more than {STEPS} steps; does a loop never end?"))
        }
        ErrorKind::WriteFailure => {
            Error::new(ErrorKind::WriteFailure, format!("writes more than {}", Bytes::of(OUTPUT)))
        }
        _ => error,
    }
}

/// What was written, up to a bound.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let mut environment = environment();
        let template = environment.add_template_owned("t", text.to_string()).map(|()| environment.get_template("t"));
        template.and_then(|t| render(&t?, context! { x => "word" })).map_err(|e| e.to_string())
    }

    #[test]
    fn templates_that_do_not_end_are_refused_in_time() {
        let start = std::time::Instant::now();
        let nine = "{% for i in range(9999) %}";
        for (text, says) in [
            (format!("{nine}{nine}{nine}{{% endfor %}}{{% endfor %}}{{% endfor %}}"), "more than 500000 steps"),
            (format!("{nine}{{{{ x * 9999 }}}}{{% endfor %}}"), "writes more than 16 MB"),
            ("{% set y = x * 99999999 %}".into(), "repeated string is too large"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(), "recursion"),
            (format!("{}x{}", "{% if x %}".repeat(5000), "{% endif %}".repeat(5000)), "recursion"),
            (format!("{{{{ {}x{} }}}}", "(".repeat(5000), ")".repeat(5000)), "recursion"),
        ] {
            let error = run(&text).unwrap_err();
            assert!(error.contains(says), "{}: {error}", &text[..30]);
        }
        assert!(start.elapsed().as_secs() < 20);
        assert_eq!(run("{{ x }}!").unwrap(), "word!");
    }

    #[test]
    fn lists_as_deep_as_the_steps_allow_do_not_overflow_the_stack() {
        let deep = "{% set n = namespace(l=[]) %}{% for i in range(50000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}";
        assert_eq!(run(deep).unwrap().len(), 2 * 50_001);
    }
}
