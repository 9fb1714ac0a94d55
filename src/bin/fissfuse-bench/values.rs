//! Lists and ranges of numbers, each value of which is a row: `1,8-512*2` is 1, 8, 16, ..., 512.

use std::fmt;
use std::str::FromStr;

use anyhow::ensure;
use serde_json::{Map, Value};

/// The most rows of a run. More is a mistake in a range.
const MOST: usize = 10_000;

/// Values of a parameter, in the order in which they were given, each once.
#[derive(Clone, Debug, PartialEq)]
pub struct Values(Vec<usize>);

impl Values {
    /// One value.
    pub fn one(value: usize) -> Values {
        Values(vec![value])
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each value.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }
}

impl fmt::Display for Values {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(usize::to_string).collect();
        out.write_str(&values.join(","))
    }
}

impl FromStr for Values {
    type Err = String;

    /// A comma between values and ranges; `A-B` is each number from A to B, `A-B+S` steps by S, `A-B*F` multiplies by F.
    fn from_str(text: &str) -> Result<Values, String> {
        let mut values = Vec::new();
        for item in text.split(',') {
            range(item.trim(), &mut values).map_err(|why| format!("`{item}`: {why}"))?;
        }
        Ok(Values(once(values)))
    }
}

/// How a range goes on.
enum Step {
    Add(usize),
    Multiply(usize),
}

fn range(item: &str, values: &mut Vec<usize>) -> Result<(), String> {
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("needs whole numbers from 1 on, as in 8, 1-4, 10-100+10 or 8-512*2".to_string()),
    };
    let Some((first, rest)) = item.split_once('-') else {
        values.push(number(item)?);
        return Ok(());
    };
    let (last, step) = match (rest.split_once('+'), rest.split_once('*')) {
        (Some((last, step)), None) => (last, Step::Add(number(step)?)),
        (None, Some((last, factor))) => match number(factor)? {
            1 => return Err("a factor of 1 never ends".into()),
            factor => (last, Step::Multiply(factor)),
        },
        (None, None) => (rest, Step::Add(1)),
        (Some(_), Some(_)) => return Err("steps by + or by *, not both".into()),
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("an empty range, since {first} is beyond {last}"));
    }
    let mut at = Some(first);
    while let Some(value) = at.filter(|value| *value <= last) {
        if values.len() == MOST {
            return Err(format!("more than {MOST} values"));
        }
        values.push(value);
        at = match step {
            Step::Add(step) => value.checked_add(step),
            Step::Multiply(factor) => value.checked_mul(factor),
        };
    }
    Ok(())
}

/// Each value once: rows that are the same cannot be told apart.
pub fn once<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    values.into_iter().fold(Vec::new(), |mut once, value| {
        if !once.contains(&value) {
            once.push(value);
        }
        once
    })
}

/// Fails if so many values of each give too many rows.
pub fn expect_few(counts: &[(&str, usize)]) -> anyhow::Result<()> {
    let rows = counts.iter().fold(1usize, |rows, (_, count)| rows.saturating_mul(*count));
    let of = || counts.iter().map(|(name, count)| format!("{count} of {name}")).collect::<Vec<_>>();
    ensure!(rows <= MOST, "{rows} rows, {MOST} are the most: {}", of().join(" x "));
    Ok(())
}

/// All combinations of the values of named parameters; the last named changes fastest. Fails if there are too many.
pub fn combinations(parameters: &[(&str, &Values)]) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut rows = vec![Map::new()];
    expect_few(&parameters.iter().map(|(name, values)| (*name, values.count())).collect::<Vec<_>>())?;
    for (name, values) in parameters {
        let with = |row: &Map<String, Value>, value: usize| {
            let mut row = row.clone();
            row.insert(name.to_string(), value.into());
            row
        };
        rows = rows.iter().flat_map(|row| values.iter().map(move |value| with(row, value))).collect();
    }
    Ok(rows)
}

/// A parameter's value in a row of [`combinations`].
pub fn value(row: &Map<String, Value>, name: &str) -> usize {
    row.get(name).and_then(Value::as_u64).map_or(0, |value| value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let of = |text: &str| text.parse::<Values>().map(|values| values.0);
        assert_eq!(of("1,8-64*2"), Ok(vec![1, 8, 16, 32, 64]));
        assert_eq!(of("2-4, 10-30+10"), Ok(vec![2, 3, 4, 10, 20, 30]));
        assert_eq!(of("3-10*2"), Ok(vec![3, 6]));
        assert_eq!(of("2,2,1-3"), Ok(vec![2, 1, 3]), "each is a row once");
        assert_eq!(of("18446744073709551615-18446744073709551615*2").unwrap().len(), 1, "no overflow");
        for (wrong, says) in [
            ("8-1", "empty range"),
            ("1-8*1", "never ends"),
            ("1-8*2+1", "not both"),
            ("1-100000", "more than 10000 values"),
            ("0", "from 1 on"),
            ("", "from 1 on"),
            ("1-", "from 1 on"),
            ("-3", "from 1 on"),
            ("1,,2", "from 1 on"),
        ] {
            assert!(of(wrong).is_err_and(|error| error.contains(says)), "{wrong}");
        }
    }

    #[test]
    fn combinations_are_counted_before_anything_runs() {
        let [two, many]: [Values; 2] = ["1-2", "1-1000"].map(|text| text.parse().unwrap());
        let rows = combinations(&[("a", &two), ("b", &two)]).unwrap();
        let pairs: Vec<_> = rows.iter().map(|row| (value(row, "a"), value(row, "b"))).collect();
        assert_eq!(pairs, [(1, 1), (1, 2), (2, 1), (2, 2)]);
        let error = combinations(&[("a", &many), ("b", &many), ("c", &two)]).unwrap_err().to_string();
        assert!(error.contains("2000000 rows") && error.contains("1000 of b"), "{error}");
    }
}
