//! Reading a pickle, as `torch.save` writes one, without running any of it.
//!
//! A pickle is a program for a machine with a stack and a memo. Here that machine imports and calls nothing: a function
//! stays a name, and a call stays a pair of function and arguments. Values lie in one list and refer to each other by
//! their place in it: what many share is there once, and memory is bounded by some hundred times the pickle's length.

use std::collections::HashMap;

/// The newest protocol there is.
const PROTOCOL: u8 = 5;

/// Place of a value among those of its pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// One value of a pickle.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// What says nothing about tensors: fractions, truth values, lists, bytes.
    Opaque,
    Int(i64),
    Text(&'a str),
    /// A function or class, by name.
    Global {
        module: &'a str,
        name: &'a str,
    },
    Tuple(Vec<Id>),
    /// Keys and values in their order.
    Dict(Vec<(Id, Id)>),
    /// What is kept outside the pickle, by what names it.
    Persistent(Id),
    /// What a function makes of a tuple of arguments.
    Call {
        function: Id,
        arguments: Id,
    },
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads `bytes`; what stands behind the end of the program is left alone.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine {
            rest: bytes,
            values: vec![Value::Opaque],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            match machine.byte()? {
                b'.' => break,
                code => machine.step(code)?,
            }
        }
        let root = machine.pop()?;
        Ok(Self { values: machine.values, root })
    }

    /// The value that the pickle is.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        if let Value::Text(text) = self.value(id) { Some(text) } else { None }
    }

    /// A number that is not negative.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        if let Value::Int(number) = self.value(id) { usize::try_from(*number).ok() } else { None }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) = self.value(id) { Some(items) } else { None }
    }

    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Value::Dict(items) = self.value(id) { Some(items) } else { None }
    }

    /// Module and name of a function or class.
    pub(super) fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        if let Value::Global { module, name } = self.value(id) { Some((module, name)) } else { None }
    }
}

/// The place of the one opaque value.
const OPAQUE: Id = Id(0);

/// The machine, in the middle of its program.
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack where a list of items begins.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Carries out one instruction; comments have its name in Python's `pickletools`.
    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            // PROTO, FRAME
            0x80 => self.protocol(),
            0x95 => self.take(8).map(drop),
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => self.top().map(|top| self.stack.push(top)),
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' | b'r' | 0x94 => self.remember(code),
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            // NONE, NEWTRUE, NEWFALSE, EMPTY_LIST, EMPTY_SET, BINFLOAT
            b'N' | 0x88 | 0x89 | b']' | 0x8f => self.push_opaque(0),
            b'G' => self.push_opaque(8),
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.uint(1).and_then(|count| self.push_opaque(count)),
            b'B' => self.uint(4).and_then(|count| self.push_opaque(count)),
            0x8e | 0x96 => self.uint(8).and_then(|count| self.push_opaque(count)),
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' | b'K' | b'M' | 0x8a | 0x8b => self.push_integer(code),
            // SHORT_BINUNICODE, SHORT_BINSTRING, BINUNICODE, BINSTRING, BINUNICODE8
            0x8c | b'U' => self.push_text(1),
            b'X' | b'T' => self.push_text(4),
            0x8d => self.push_text(8),
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => self.push_tuple(usize::from(code - 0x84)),
            b't' => self.pop_to_mark().and_then(|items| self.push(Value::Tuple(items))),
            // APPEND, APPENDS, ADDITEMS, FROZENSET
            b'a' => self.pop().map(drop),
            b'e' | 0x90 => self.pop_to_mark().map(drop),
            0x91 => self.pop_to_mark().and_then(|_| self.push_opaque(0)),
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => self.push(Value::Dict(Vec::new())),
            b's' => self.pop_many(2).and_then(|items| self.set_items(&items)),
            b'u' => self.pop_to_mark().and_then(|items| self.set_items(&items)),
            // GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'c' => self.global(),
            0x93 => self.stack_global(),
            b'R' | 0x81 => self.call(),
            0x92 => self.pop().and_then(|_| self.call()),
            b'b' => self.pop().map(drop),
            b'Q' => self.pop().and_then(|name| self.push(Value::Persistent(name))),
            other => Err(format!("instruction {other:#04x} is not known")),
        }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("it ends within an instruction")?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.rest.split_first().ok_or("it does not end as a pickle does")?;
        self.rest = rest;
        Ok(first)
    }

    /// A number of so many bytes, up to eight.
    fn uint(&mut self, bytes: u64) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.rest.iter().position(|&byte| byte == b'\n').ok_or("it ends within a name")?;
        let line = self.take(length as u64 + 1)?;
        std::str::from_utf8(&line[..length]).map_err(|_| "a name is no UTF-8".to_owned())
    }

    fn protocol(&mut self) -> Result<(), String> {
        let protocol = self.byte()?;
        if protocol > PROTOCOL { Err(format!("protocol {protocol} is not known")) } else { Ok(()) }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        let place = u32::try_from(self.values.len()).map_err(|_| "it has too many values")?;
        self.values.push(value);
        self.stack.push(Id(place));
        Ok(())
    }

    /// Pushes the opaque value after passing over what it is written in.
    fn push_opaque(&mut self, bytes: u64) -> Result<(), String> {
        self.take(bytes)?;
        self.stack.push(OPAQUE);
        Ok(())
    }

    fn push_integer(&mut self, code: u8) -> Result<(), String> {
        let bytes = match code {
            b'K' => return self.uint(1).and_then(|number| self.push(Value::Int(number as i64))),
            b'M' => return self.uint(2).and_then(|number| self.push(Value::Int(number as i64))),
            b'J' => 4,
            0x8a => self.uint(1)?,
            _ => self.uint(4)?,
        };
        match bytes {
            0 => self.push(Value::Int(0)),
            1..=8 => {
                let unused = 64 - 8 * bytes;
                let number = self.uint(bytes)?;
                self.push(Value::Int((number << unused) as i64 >> unused))
            }
            _ => self.push_opaque(bytes),
        }
    }

    /// Pushes a text behind its length, which takes so many bytes.
    fn push_text(&mut self, bytes: u64) -> Result<(), String> {
        let length = self.uint(bytes)?;
        let text = std::str::from_utf8(self.take(length)?);
        self.push(text.map_or(Value::Opaque, Value::Text))
    }

    fn push_tuple(&mut self, count: usize) -> Result<(), String> {
        let items = self.pop_many(count)?;
        self.push(Value::Tuple(items))
    }

    /// The values above the last mark that still stands, which no pop goes below.
    fn above_mark(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, String> {
        let top = self.stack.last().copied().filter(|_| self.above_mark() > 0);
        top.ok_or_else(|| "it takes more from the stack than there is".to_owned())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The last values, in the order in which they were pushed.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<Id>, String>>()?;
        items.reverse();
        Ok(items)
    }

    /// Takes away the last mark and what is above it.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let height = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(height))
    }

    fn remember(&mut self, code: u8) -> Result<(), String> {
        let key = match code {
            b'q' => self.uint(1)?,
            b'r' => self.uint(4)?,
            _ => self.memo.len() as u64,
        };
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    /// Pushes what was remembered under a key of so many bytes.
    fn recall(&mut self, bytes: u64) -> Result<(), String> {
        let key = self.uint(bytes)?;
        let id = self.memo.get(&key).ok_or_else(|| format!("nothing was remembered as {key}"))?;
        self.stack.push(*id);
        Ok(())
    }

    /// Adds keys and values to the dict on the stack. What a call made and takes items is a dict of some kind.
    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        let (pairs, alone) = items.as_chunks::<2>();
        if !alone.is_empty() {
            return Err("a key has no value".to_owned());
        }
        let pairs = pairs.iter().map(|&[key, value]| (key, value));
        match &mut self.values[target.0 as usize] {
            Value::Dict(entries) => entries.extend(pairs),
            made @ Value::Call { .. } => *made = Value::Dict(pairs.collect()),
            _ => {}
        }
        Ok(())
    }

    fn global(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        self.push(Value::Global { module, name })
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let names = self.pop_many(2)?;
        match [&self.values[names[0].0 as usize], &self.values[names[1].0 as usize]] {
            [&Value::Text(module), &Value::Text(name)] => self.push(Value::Global { module, name }),
            _ => Err("the name of a function is no text".to_owned()),
        }
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        self.push(Value::Call { function, arguments })
    }
}
