//! A pickle machine that knows the tensors of PyTorch and nothing else: it calls nothing that a file names, and refuses what it
//! does not know.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::values::{GLOBALS, Global, Pickled, Place, Storage, Value};

/// Of a tensor in PyTorch.
const MOST_DIMENSIONS: usize = 64;

/// Values and sizes of a pickle; a model of 100,000 tensors has about half as many.
const MOST_VALUES: usize = 4_000_000;

/// What a pickle says, or why it is not read.
pub(super) type Said<T> = Result<T, String>;

struct Machine<'a> {
    /// What is left of the file.
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Place>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// Values and sizes so far.
    count: usize,
    memo: HashMap<u64, Place>,
}

/// The tensors of the dictionary that a pickle is, by name.
pub(super) fn tensors(pickle: &[u8]) -> Said<BTreeMap<String, Rc<Pickled>>> {
    let mut machine = Machine {
        rest: pickle,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        count: 0,
        memo: HashMap::new(),
    };
    let last = machine.run()?;
    let Value::Dict(entries) = &machine.values[last] else {
        return Err("is no dictionary of tensors".into());
    };
    let mut found = BTreeMap::new();
    for &(key, value) in entries {
        let (Value::Text(name), Value::Tensor(tensor)) = (&machine.values[key], &machine.values[value]) else {
            let what = match &machine.values[key] {
                Value::Text(name) => format!("`{name}`"),
                _ => "an entry".into(),
            };
            return Err(format!(
                "{what} is no tensor; save the model's `state_dict()` alone, as `save_pretrained` does"
            ));
        };
        found.insert(name.to_string(), tensor.clone());
    }
    Ok(found)
}

impl<'a> Machine<'a> {
    /// Runs to the end; the place of the result.
    fn run(&mut self) -> Said<Place> {
        loop {
            let [opcode] = self.bytes()?;
            self.counted(1)?;
            match opcode {
                // PROTO, FRAME
                0x80 => {
                    let [version] = self.bytes()?;
                    if !(2..=5).contains(&version) {
                        return Err(format!("is of pickle's protocol {version}; those of 2 to 5 are read"));
                    }
                }
                0x95 => drop(self.bytes::<8>()?),
                // NONE, BINFLOAT
                b'N' => self.push(Value::Other),
                b'G' => {
                    self.bytes::<8>()?;
                    self.push(Value::Other);
                }
                // NEWTRUE, NEWFALSE
                0x88 | 0x89 => self.push(Value::Bool),
                // BININT, BININT1, BININT2, LONG1
                b'J' => {
                    let value = i32::from_le_bytes(self.bytes()?);
                    self.push(Value::Int(value.into()));
                }
                b'K' => {
                    let [value] = self.bytes()?;
                    self.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.bytes()?);
                    self.push(Value::Int(value.into()));
                }
                0x8a => {
                    let value = self.long()?;
                    self.push(Value::Int(value));
                }
                // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
                b'X' => {
                    let len = u32::from_le_bytes(self.bytes()?);
                    self.push_text(len.into())?;
                }
                0x8c => {
                    let [len] = self.bytes()?;
                    self.push_text(len.into())?;
                }
                0x8d => {
                    let len = u64::from_le_bytes(self.bytes()?);
                    self.push_text(len)?;
                }
                // EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, MARK
                b'}' => self.push(Value::Dict(Vec::new())),
                b']' => self.push(Value::List(Vec::new())),
                b')' => self.push(Value::Tuple(Vec::new())),
                b'(' => self.marks.push(self.stack.len()),
                // TUPLE, TUPLE1, TUPLE2, TUPLE3
                b't' => {
                    let parts = self.marked()?;
                    self.push(Value::Tuple(parts));
                }
                0x85..=0x87 => {
                    let parts = (0x85..=opcode).map(|_| self.pop()).collect::<Said<Vec<Place>>>()?;
                    self.push(Value::Tuple(parts.into_iter().rev().collect()));
                }
                // APPEND, APPENDS
                b'a' => {
                    let item = self.pop()?;
                    self.extend_list(&[item])?;
                }
                b'e' => {
                    let items = self.marked()?;
                    self.extend_list(&items)?;
                }
                // SETITEM, SETITEMS
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend_dict(&[key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.extend_dict(&items)?;
                }
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' => {
                    let [place] = self.bytes()?;
                    self.keep(place.into())?;
                }
                b'r' => {
                    let place = u32::from_le_bytes(self.bytes()?);
                    self.keep(place.into())?;
                }
                0x94 => self.keep(self.memo.len() as u64)?,
                // BINGET, LONG_BINGET
                b'h' => {
                    let [place] = self.bytes()?;
                    self.get(place.into())?;
                }
                b'j' => {
                    let place = u32::from_le_bytes(self.bytes()?);
                    self.get(place.into())?;
                }
                // GLOBAL, STACK_GLOBAL
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push_global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (module, name) = (self.text(module)?.clone(), self.text(name)?.clone());
                    self.push_global(&module, &name)?;
                }
                // BINPERSID, REDUCE
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                // BUILD: what modules remember beside their weights.
                b'b' => {
                    let _state = self.pop()?;
                    let top = self.top()?;
                    if !matches!(self.values[top], Value::Dict(_)) {
                        return Err("sets the inner state of something that is no dictionary".into());
                    }
                }
                b'.' => return self.pop(),
                other => {
                    let known = "PyTorch writes none such for weights";
                    return Err(format!("holds the pickle opcode 0x{other:02x}; {known}, and nothing else is read"));
                }
            }
        }
    }

    /// Counts values or sizes, so that no file takes more memory or time than weights can need.
    fn counted(&mut self, more: usize) -> Said<()> {
        self.count += more;
        match self.count > MOST_VALUES {
            true => Err(format!("has a pickle of more than {MOST_VALUES} values, which no model has")),
            false => Ok(()),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Said<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("ends in the middle of its pickle")?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn many(&mut self, len: u64) -> Said<&'a [u8]> {
        let len = usize::try_from(len).ok();
        let (bytes, rest) =
            len.and_then(|len| self.rest.split_at_checked(len)).ok_or("ends in the middle of a text")?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A whole number of up to 8 bytes, the first of which says how many.
    fn long(&mut self) -> Said<i64> {
        let [len] = self.bytes()?;
        let bytes = self.many(len.into())?;
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        value.get_mut(..bytes.len()).ok_or("holds a number of more than 64 bits")?.copy_from_slice(bytes);
        Ok(i64::from_le_bytes(value))
    }

    fn line(&mut self) -> Said<String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or("ends in the middle of a name")?;
        let line = self.many(end as u64)?;
        self.bytes::<1>()?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn push_text(&mut self, len: u64) -> Said<()> {
        let text = std::str::from_utf8(self.many(len)?).map_err(|_| "holds a text that is no UTF-8")?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Said<()> {
        let whole = format!("{module}.{name}");
        let (_, global) = GLOBALS.iter().find(|(known, _)| *known == whole).ok_or_else(|| match module {
            // Complex, sparse and quantized tensors, and those on other devices.
            "torch" | "torch._utils" | "torch.storage" | "torch._tensor" => format!(
                "holds a tensor that is made by {whole:?}; dense tensors of floats and whole numbers alone are read"
            ),
            _ => format!(
                "asks for {whole:?}, which no tensor needs: it would be run; such a file is not read, save the model with \
                 safe_serialization"
            ),
        })?;
        self.push(Value::Global(*global));
        Ok(())
    }

    fn top(&self) -> Said<Place> {
        self.stack.last().copied().ok_or_else(|| "takes from an empty stack".into())
    }

    fn pop(&mut self) -> Said<Place> {
        let top = self.top()?;
        // What stands below a mark is taken by the mark's own opcode alone.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err("takes from below a mark".into());
        }
        self.stack.pop();
        Ok(top)
    }

    fn marked(&mut self) -> Said<Vec<Place>> {
        let mark = self.marks.pop().ok_or("ends a tuple that it has not begun")?;
        Ok(self.stack.split_off(mark))
    }

    fn keep(&mut self, at: u64) -> Said<()> {
        self.memo.insert(at, self.top()?);
        Ok(())
    }

    fn get(&mut self, at: u64) -> Said<()> {
        let place = self.memo.get(&at).ok_or("asks for a value that it has not kept")?;
        self.stack.push(*place);
        Ok(())
    }

    fn extend_list(&mut self, items: &[Place]) -> Said<()> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(values) => values.extend_from_slice(items),
            _ => return Err("appends to something that is no list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Place]) -> Said<()> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("sets a key without a value".into());
        };
        match &mut self.values[dict] {
            Value::Dict(values) => values.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err("sets entries of something that is no dictionary".into()),
        }
        Ok(())
    }

    fn text(&self, place: Place) -> Said<&Rc<str>> {
        match &self.values[place] {
            Value::Text(text) => Ok(text),
            _ => Err("holds something else where a text is due".into()),
        }
    }

    fn number(&self, place: Place) -> Said<usize> {
        match self.values[place] {
            Value::Int(number) => usize::try_from(number).map_err(|_| format!("holds {number} where a size is due")),
            _ => Err("holds something else where a size is due".into()),
        }
    }

    fn parts(&self, place: Place) -> Said<&[Place]> {
        match &self.values[place] {
            Value::Tuple(parts) => Ok(parts),
            _ => Err("holds something else where a tuple is due".into()),
        }
    }

    fn numbers(&mut self, place: Place) -> Said<Vec<usize>> {
        let count = self.parts(place)?.len();
        if count > MOST_DIMENSIONS {
            return Err(format!("has a tensor of {count} dimensions"));
        }
        self.counted(count)?;
        self.parts(place)?.iter().map(|&part| self.number(part)).collect()
    }

    /// `("storage", type, name, where it was, values)` becomes a storage.
    fn storage(&mut self) -> Said<()> {
        let id = self.pop()?;
        let &[kind, class, name, _device, len] = self.parts(id)? else {
            return Err("refers to something that is no storage of a tensor".into());
        };
        if **self.text(kind)? != *"storage" {
            return Err("refers to something that is no storage of a tensor".into());
        }
        let Value::Global(Global::Storage(dtype)) = self.values[class] else {
            return Err("has a storage of no type that is known".into());
        };
        let (name, len) = (self.text(name)?.clone(), self.number(len)?);
        self.push(Value::Storage(Rc::new(Storage { name, dtype, len })));
        Ok(())
    }

    /// The three calls that make dictionaries and tensors.
    fn call(&mut self) -> Said<()> {
        let (arguments, called) = (self.pop()?, self.pop()?);
        // None has more than these; some have a few more, which no weight needs.
        let mut first = [None; 4];
        first.iter_mut().zip(self.parts(arguments)?).for_each(|(slot, &place)| *slot = Some(place));
        let made = match (&self.values[called], first) {
            (Value::Global(Global::OrderedDict), [None, ..]) => Value::Dict(Vec::new()),
            (Value::Global(Global::RebuildTensor), [Some(storage), Some(offset), Some(shape), Some(strides)]) => {
                let Value::Storage(storage) = &self.values[storage] else {
                    return Err("makes a tensor of something that is no storage".into());
                };
                let storage = storage.clone();
                let (shape, strides) = (self.numbers(shape)?, self.numbers(strides)?);
                if shape.len() != strides.len() {
                    return Err(format!("has a tensor of {} dimensions with {} strides", shape.len(), strides.len()));
                }
                Value::Tensor(Rc::new(Pickled { storage, offset: self.number(offset)?, shape, strides }))
            }
            (Value::Global(Global::RebuildParameter), [Some(tensor), ..]) => match &self.values[tensor] {
                Value::Tensor(tensor) => Value::Tensor(tensor.clone()),
                _ => return Err("makes a parameter of something that is no tensor".into()),
            },
            _ => return Err("calls something that makes no tensor".into()),
        };
        self.push(made);
        Ok(())
    }
}
