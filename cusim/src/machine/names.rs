//! Names as people write them.

use cpp_demangle::{DemangleOptions, Symbol};

/// Nested deeper than this, a name stays as it is, so that no text can exhaust the stack.
const MAX_DEPTH: u32 = 64;

/// What a C++ compiler made of a name undone, without parameters and result (but with those of a
/// function that a variable belongs to); other names as they are.
pub fn readable(name: &str) -> String {
    let options = DemangleOptions::new().no_params().no_return_type().recursion_limit(MAX_DEPTH);
    let symbol = Symbol::new(name).ok();
    symbol.and_then(|symbol| symbol.demangle_with_options(&options).ok()).unwrap_or_else(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn names_of_kernels_and_of_their_variables() {
        for (name, expected) in [
            ("reduce", "reduce"),
            ("_Z6reducePf", "reduce"),
            ("_Z6doubleIfEvPT_i", "double<float>"),
            ("_ZN4math7softmaxIfLi4EEEvPKT_PS1_", "math::softmax<float, 4>"),
            ("_ZZ6reducePfE4part", "reduce(float*)::part"),
            ("_Znot", "_Znot"),
            ("", ""),
        ] {
            assert_eq!(readable(name), expected);
        }
        let deep = format!("_Z1f{}i", "P".repeat(100_000));
        assert!(!readable(&deep).is_empty());
    }
}
