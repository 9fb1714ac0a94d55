//! What the values of a pickle may be: those that PyTorch writes for tensors.

use std::rc::Rc;

use safetensors::Dtype;

/// A tensor of a pickle: a part of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pickled {
    pub storage: Rc<Storage>,
    /// Its first value's place in the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Values from one to the next along each dimension.
    pub strides: Vec<usize>,
}

/// Values of one type that tensors are parts of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// Name of its entry under `data/`.
    pub name: Rc<str>,
    pub dtype: Dtype,
    /// How many values.
    pub len: usize,
}

/// Functions and types that files of weights name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

pub(super) const GLOBALS: [(&str, Global); 13] = [
    ("collections.OrderedDict", Global::OrderedDict),
    ("torch._utils._rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils._rebuild_parameter", Global::RebuildParameter),
    ("torch.DoubleStorage", Global::Storage(Dtype::F64)),
    ("torch.FloatStorage", Global::Storage(Dtype::F32)),
    ("torch.HalfStorage", Global::Storage(Dtype::F16)),
    ("torch.BFloat16Storage", Global::Storage(Dtype::BF16)),
    ("torch.LongStorage", Global::Storage(Dtype::I64)),
    ("torch.IntStorage", Global::Storage(Dtype::I32)),
    ("torch.ShortStorage", Global::Storage(Dtype::I16)),
    ("torch.CharStorage", Global::Storage(Dtype::I8)),
    ("torch.ByteStorage", Global::Storage(Dtype::U8)),
    ("torch.BoolStorage", Global::Storage(Dtype::BOOL)),
];

/// A place among a machine's values. Values stay there until the end, so that one may be part of many.
pub(super) type Place = usize;

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// None, or a number that no tensor needs.
    Other,
    Bool,
    Int(i64),
    Text(Rc<str>),
    Tuple(Vec<Place>),
    List(Vec<Place>),
    Dict(Vec<(Place, Place)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Pickled>),
}
