//! Arrays on blocks: making them, and reading how they lie.

use super::super::gil;
use super::super::objects::Block;
use super::capi::{
    check_class, is_simple, lengths_of, numpy, own_class, strides_of, Array, Numpy, Table, ALIGNED,
    C_ORDER, F_ORDER, LETTERS, MOST_DIMENSIONS, OWNS_DATA, OWN_CLASS, WRITEABLE,
};
use super::layout::{Items, Layout, Shape, FEW};
use crate::process;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};
use pyo3::AsPyPointer;
use std::ffi::c_int;
use std::ptr::null_mut;

/// A small plain array: of numbers, without gaps, in memory of its own or another array's.
pub struct Small<'py> {
    /// Of the dtype.
    pub number: u8,
    pub shape: &'py [isize],
    /// Whether the first index varies fastest, and the last does not.
    pub fortran: bool,
    pub writeable: bool,
    data: *const u8,
    bytes: usize,
}

impl Small<'_> {
    /// Appends the items, as they lie.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        to.reserve(self.bytes);
        let end = to.len();
        let room = to.spare_capacity_mut().as_mut_ptr();
        // SAFETY: so many bytes lie there, without gaps, and there is room for them. Others may
        // write to them meanwhile: as in numpy's own copy.
        unsafe { crate::sys::copy::copy(self.data, room.cast(), self.bytes) };
        // SAFETY: that were so many.
        unsafe { to.set_len(end + self.bytes) };
    }
}

/// An array of so many bytes is not small.
const LARGE: usize = 1 << 16;

/// The bytes of an array as if none of its dimensions had the length 0; older numpys ask for
/// so much memory to make it.
fn room_of(size: usize, shape: &[isize]) -> usize {
    let lengths = shape.iter().map(|length| (*length).max(1) as usize);
    lengths.fold(size, usize::saturating_mul)
}

/// Reads an array of fewer bytes than `below`; None if it is not small and plain.
pub fn small<'py>(
    py: Python<'py>,
    array: &'py PyAny,
    below: usize,
) -> PyResult<Option<Small<'py>>> {
    let Numpy::InC(table) = numpy(py)? else {
        return Ok(None);
    };
    if array.get_type_ptr() != table.array {
        return Ok(None);
    }
    // SAFETY: an instance of numpy's array class, which begins so in every version.
    let fields = unsafe { &*(array.as_ptr() as *const Array) };
    let order = fields.flags & (C_ORDER | F_ORDER);
    if order == 0 || !table.is_plain(py, fields) {
        return Ok(None);
    }
    let Some(number) = table.number_of(py, fields.dtype)? else {
        return Ok(None);
    };
    let dtype = table.dtype_of(py, number)?;
    let (bytes, _) = table.extent(py, fields);
    let size = table.facts(dtype).0;
    let is_small = bytes < below && room_of(size, lengths_of(fields)) < LARGE;
    Ok(is_small.then(|| Small {
        number,
        shape: lengths_of(fields),
        fortran: order == F_ORDER,
        writeable: fields.flags & WRITEABLE != 0,
        data: fields.data,
        bytes,
    }))
}

/// A plain array that is large, and whose items lie one behind the other.
pub fn is_large(py: Python<'_>, array: &PyAny, sizes: std::ops::Range<usize>) -> PyResult<bool> {
    let Numpy::InC(table) = numpy(py)? else {
        return Ok(false);
    };
    if array.get_type_ptr() != table.array {
        return Ok(false);
    }
    // SAFETY: an instance of numpy's array class, which begins so in every version.
    let fields = unsafe { &*(array.as_ptr() as *const Array) };
    let is_whole = fields.flags & (C_ORDER | F_ORDER) != 0;
    Ok(is_whole
        && sizes.contains(&table.extent(py, fields).0)
        && table.is_plain(py, fields)
        && table.number_of(py, fields.dtype)?.is_some())
}

/// Whether an array can be written to.
pub fn is_writeable(array: &PyAny) -> PyResult<bool> {
    array.getattr("flags")?.getattr("writeable")?.extract()
}

/// How an array of numbers lies on a block.
pub struct BlockView {
    /// Of the dtype.
    pub number: u8,
    pub shape: Vec<isize>,
    pub strides: Vec<isize>,
    /// Where the first item begins, in bytes.
    pub offset: usize,
    pub writeable: bool,
    /// It is a `shared_numpy.ndarray`, and has nothing else to it.
    pub is_own: bool,
}

/// Reads where an array lies, the block and how; None if that is in no block, or in part, or if
/// there is more to the array.
pub fn block_view<'py>(py: Python<'py>, array: &'py PyAny) -> PyResult<Option<OnBlock<'py>>> {
    let Numpy::InC(table) = numpy(py)? else {
        return Ok(None);
    };
    let class = array.get_type_ptr();
    let is_own = Some(class) == own_class(py);
    if class != table.array && !is_own {
        return Ok(None);
    }
    // SAFETY: an instance of numpy's array class, or of one below it.
    let fields = unsafe { &*(array.as_ptr() as *const Array) };
    let Some(base) = table.last_base(py, fields).1 else {
        return Ok(None);
    };
    let Ok(block) = base.downcast::<PyCell<Block>>() else {
        return Ok(None);
    };
    let Some(number) = table.number_of(py, fields.dtype)? else {
        return Ok(None);
    };
    if is_own && array.getattr("__dict__")?.len()? != 0 {
        return Ok(None);
    }
    let (shape, strides) = (lengths_of(fields), strides_of(fields));
    let first = block.borrow().first_byte() as usize;
    let offset = match shape.contains(&0) {
        true => 0,
        false => (fields.data as usize).wrapping_sub(first),
    };
    let size = block.borrow().inner().size();
    let items = Items::new(py, Some(table.dtype_of(py, number)?.as_ref(py)))?;
    let (lengths, steps) = (Shape::of(shape)?, Shape::of(strides)?);
    if Layout::at(size, items, lengths, steps, offset).is_err() {
        return Ok(None);
    }
    let placed = BlockView {
        number,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
        offset,
        writeable: fields.flags & WRITEABLE != 0,
        is_own,
    };
    Ok(Some((block, placed)))
}

type OnBlock<'py> = (&'py PyCell<Block>, BlockView);

/// Makes an array like a `BlockView` one on a block.
///
/// # Errors
/// `ValueError` if it would lie outside, or there is no such array.
pub fn array_like(py: Python<'_>, block: Py<Block>, placed: &BlockView) -> PyResult<PyObject> {
    let (shape, strides) = (&placed.shape, &placed.strides);
    let items = items_of(py, placed.number)?;
    let room = block.borrow(py).inner().size();
    if shape.iter().any(|length| *length < 0) {
        return Err(PyValueError::new_err("negative dimensions are not allowed"));
    }
    let layout = Layout::at(
        room,
        items,
        Shape::of(shape)?,
        Shape::of(strides)?,
        placed.offset,
    )?;
    let class = match (placed.is_own, OWN_CLASS.get(py)) {
        (false, _) => None,
        (true, Some(class)) => Some(class.as_ref(py)),
        (true, None) => Some(py.import("shared_numpy")?.getattr("ndarray")?.downcast()?),
    };
    let made = array(py, block, layout, class)?;
    if !placed.writeable {
        made.as_ref(py)
            .getattr("flags")?
            .setattr("writeable", false)?;
    }
    Ok(made)
}

/// The items of a dtype that its number says all about.
fn items_of(py: Python<'_>, number: u8) -> PyResult<Items> {
    if !is_simple(number as c_int) {
        return Err(PyValueError::new_err("there is no such dtype"));
    }
    match numpy(py)? {
        Numpy::InC(table) => Items::new(py, Some(table.dtype_of(py, number)?.as_ref(py))),
        Numpy::InPython => {
            let letter = (LETTERS[number as usize] as char).to_string();
            Items::new(py, Some(PyString::new(py, &letter)))
        }
    }
}

/// Makes an array like a `Small` one, of the first of some bytes; and how many these are. None
/// if there are too few, or there is no such array.
pub fn made_of(
    py: Python<'_>,
    number: u8,
    shape: &[isize],
    fortran: bool,
    writeable: bool,
    bytes: &[u8],
) -> PyResult<Option<(PyObject, usize)>> {
    if !is_simple(number as c_int) || shape.len() > MOST_DIMENSIONS {
        return Ok(None);
    }
    let items = items_of(py, number)?;
    let negative = shape.iter().any(|length| *length < 0);
    if negative || room_of(items.size, shape) >= LARGE {
        return Ok(None);
    }
    let size = shape
        .iter()
        .fold(items.size, |size, length| size * *length as usize);
    let Some(bytes) = bytes.get(..size) else {
        return Ok(None);
    };
    let made = match numpy(py)? {
        Numpy::InC(table) => table.made_of(py, items, shape, fortran, writeable, bytes)?,
        Numpy::InPython => {
            let order = if fortran { "F" } else { "C" };
            let shape = PyTuple::new(py, shape);
            let args = (
                shape,
                items.dtype,
                PyBytes::new(py, bytes),
                0,
                py.None(),
                order,
            );
            let numpy = py.import("numpy")?;
            let array = numpy.getattr("ndarray")?.call1(args)?;
            let array = array.call_method1("copy", (order,))?;
            array.getattr("flags")?.setattr("writeable", writeable)?;
            array.into()
        }
    };
    Ok(Some((made, size)))
}

/// The bytes of an array of bytes, which lie one behind the other.
///
/// # Errors
/// `TypeError` for anything else.
pub fn bytes_of<'py>(py: Python<'py>, array: &'py PyAny) -> PyResult<&'py [u8]> {
    let Numpy::InC(table) = numpy(py)? else {
        let bytes: &PyBytes = array.call_method0("tobytes")?.downcast()?;
        return Ok(bytes.as_bytes());
    };
    check_class(array.get_type(), table.array)?;
    // SAFETY: an instance of numpy's array class, or of one below it.
    let fields = unsafe { &*(array.as_ptr() as *const Array) };
    if fields.flags & C_ORDER == 0 {
        return Err(PyTypeError::new_err(
            "the array's bytes do not lie one behind the other",
        ));
    }
    let (bytes, _) = table.extent(py, fields);
    // SAFETY: so many bytes are there as long as the array is; it is a message, which nobody
    // writes to any more.
    Ok(unsafe { std::slice::from_raw_parts(fields.data, bytes) })
}

/// What can be said of memory by those that refer to it.
pub struct Owner<'py> {
    /// An array that has allocated it, or the block that an array lies on.
    pub object: &'py PyAny,
    /// Where the array's items begin that has allocated it.
    pub data: Option<usize>,
}

/// The array's size in bytes, and the owner of its memory; None for what is no array
/// of numpy's own class, has items with references, or lies in memory of something
/// else.
pub fn owner<'py>(py: Python<'py>, object: &'py PyAny) -> PyResult<Option<(usize, Owner<'py>)>> {
    let Numpy::InC(table) = numpy(py)? else {
        return Ok(None);
    };
    let as_array = |object: &'py PyAny| {
        let class = object.get_type_ptr();
        // SAFETY: an instance of numpy's array class, which begins so in every
        // version.
        (class == table.array).then(|| unsafe { &*(object.as_ptr() as *const Array) })
    };
    let Some(array) = as_array(object) else {
        return Ok(None);
    };
    let (bytes, has_objects) = table.extent(py, array);
    if has_objects {
        return Ok(None);
    }
    let mut owner = Owner {
        object,
        data: Some(array.data as usize),
    };
    let repeats = |(length, stride): (&isize, &isize)| *stride == 0 && *length > 1;
    if lengths_of(array).iter().zip(strides_of(array)).any(repeats) {
        return Ok(None);
    }
    let mut flags = array.flags;
    if !array.base.is_null() {
        if flags & OWNS_DATA != 0 {
            // A copy that is to be written back.
            return Ok(None);
        }
        // SAFETY: a live object while the array is, which the caller holds.
        owner.object = unsafe { py.from_borrowed_ptr::<PyAny>(array.base) };
        match as_array(owner.object) {
            Some(base) if base.base.is_null() && !table.extent(py, base).1 => {
                owner.data = Some(base.data as usize);
                flags = base.flags;
            }
            Some(_) => return Ok(None),
            None => owner.data = None,
        }
    }
    let is_whole = owner.data.is_none() || flags & OWNS_DATA != 0;
    Ok(is_whole.then_some((bytes, owner)))
}

/// An array whose items lie one behind the other, to be read.
pub struct Contiguous<'py> {
    object: &'py PyAny,
    /// None: where numpy's functions in C cannot be used.
    data: Option<*const u8>,
    /// Whether the first index varies fastest, and the last does not.
    pub fortran: bool,
}

impl<'py> Contiguous<'py> {
    /// Reads what an array is; None if its items lie otherwise.
    ///
    /// # Errors
    /// `TypeError` for what is no array, and for items that hold references.
    pub fn new(py: Python<'py>, object: &'py PyAny) -> PyResult<Option<(Self, Items, Shape)>> {
        match numpy(py)? {
            Numpy::InC(table) => {
                check_class(object.get_type(), table.array)?;
                // SAFETY: an instance of numpy's array class or of a subclass,
                // which begin so in every version.
                let array = unsafe { &*(object.as_ptr() as *const Array) };
                if array.flags & (C_ORDER | F_ORDER) == 0 {
                    return Ok(None);
                }
                // SAFETY: an array has a dtype for as long as it lives.
                let dtype = unsafe { py.from_borrowed_ptr::<PyAny>(array.dtype) };
                let items = Items::new(py, Some(dtype))?;
                let mut shape = Shape::empty();
                for length in lengths_of(array) {
                    shape.push("shape", *length)?;
                }
                let contiguous = Contiguous {
                    object,
                    data: Some(array.data),
                    fortran: array.flags & C_ORDER == 0,
                };
                Ok(Some((contiguous, items, shape)))
            }
            Numpy::InPython => {
                let class: &PyType = py.import("numpy")?.getattr("ndarray")?.downcast()?;
                check_class(object.get_type(), class.as_type_ptr())?;
                let flags = object.getattr("flags")?;
                let is = |flag: &str| flags.getattr(flag)?.extract::<bool>();
                let (c, f) = (is("c_contiguous")?, is("f_contiguous")?);
                let items = Items::new(py, Some(object.getattr("dtype")?))?;
                let shape = Shape::new(object.getattr("shape")?)?;
                let contiguous = Contiguous {
                    object,
                    data: None,
                    fortran: !c,
                };
                Ok((c || f).then_some((contiguous, items, shape)))
            }
        }
    }

    /// Copies the items to `made`, an array of the same dtype, shape and order that nobody else has,
    /// on `bytes` bytes of a new block from `at` on.
    pub fn copy_to(
        &self,
        py: Python<'_>,
        made: &PyObject,
        block: &process::Block,
        at: usize,
        bytes: usize,
    ) -> PyResult<()> {
        let Some(from) = self.data else {
            let numpy = py.import("numpy")?;
            return numpy
                .call_method1("copyto", (made, self.object))
                .map(|_| ());
        };
        // The array lives while its reference is held, and numpy moves no memory
        // to which other objects refer; what other threads write into it meanwhile may or
        // may not be copied, as in numpy's own copy.
        //
        // SAFETY: the source has as many items as the target, whose block has
        // room for them and is new; both one behind the other.
        unsafe { gil::copy_in(py, from, block, at, bytes) };
        Ok(())
    }
}

/// Makes an array of class `class` (numpy's own if None) on a block, of which it
/// becomes the user: the block is its `base`.
#[inline]
pub fn array(
    py: Python<'_>,
    block: Py<Block>,
    layout: Layout,
    class: Option<&PyType>,
) -> PyResult<PyObject> {
    let first = block.borrow(py).first_byte();
    match numpy(py)? {
        Numpy::InC(table) => table.array(py, block, first, layout, class),
        Numpy::InPython => array_in_python(py, block, layout, class),
    }
}

impl Table {
    /// Whether an array lies in memory that numpy has allocated for it, or for what it is a view
    /// of, or in a block that is this process's own.
    fn is_plain(&self, py: Python<'_>, array: &Array) -> bool {
        if array.base.is_null() {
            return true;
        }
        if array.flags & OWNS_DATA != 0 {
            // A copy that is to be written back.
            return false;
        }
        match self.last_base(py, array) {
            (last, None) => last.flags & OWNS_DATA != 0,
            (_, Some(base)) => {
                let block = base.downcast::<PyCell<Block>>();
                block.is_ok_and(|block| block.borrow().is_private())
            }
        }
    }

    /// Makes an array of bytes of which there are as many as it takes.
    fn made_of(
        &self,
        py: Python<'_>,
        items: Items,
        shape: &[isize],
        fortran: bool,
        writeable: bool,
        bytes: &[u8],
    ) -> PyResult<PyObject> {
        self.check_dimensions(py, shape.len(), &items)?;
        // SAFETY: an array type, a dtype whose reference is given away, and a shape of as
        // many numbers as dimensions; numpy allocates the memory.
        let array = unsafe {
            (self.new_from_dtype)(
                self.array,
                items.dtype.into_ptr(),
                shape.len() as c_int,
                shape.as_ptr(),
                std::ptr::null(),
                null_mut(),
                if fortran { F_ORDER } else { 0 },
                null_mut(),
            )
        };
        if array.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: a new reference.
        let object = unsafe { PyObject::from_owned_ptr(py, array) };
        // SAFETY: an array that nobody else has, which begins so in every version.
        let fields = unsafe { &mut *(array as *mut Array) };
        // SAFETY: it has just as many bytes, as the caller has seen, without gaps.
        unsafe { crate::sys::copy::copy(bytes.as_ptr(), fields.data, bytes.len()) };
        if !writeable {
            fields.flags &= !WRITEABLE;
        }
        Ok(object)
    }

    #[inline]
    fn array(
        &self,
        py: Python<'_>,
        block: Py<Block>,
        first: *mut u8,
        layout: Layout,
        class: Option<&PyType>,
    ) -> PyResult<PyObject> {
        if let Some(class) = class {
            check_class(class, self.array)?;
        }
        self.check_dimensions(py, layout.shape.dimensions, &layout.items)?;
        let (strides, flags) = match (&layout.strides, layout.fortran) {
            (Some(strides), _) => (strides.as_slice().as_ptr(), WRITEABLE),
            (None, false) => (std::ptr::null(), WRITEABLE | ALIGNED | C_ORDER),
            (None, true) => (std::ptr::null(), WRITEABLE | ALIGNED | F_ORDER),
        };
        // Within the block, as `Layout` has seen to.
        let bytes = first.wrapping_add(layout.offset);
        // SAFETY: an array type, a dtype whose reference is given away, shape
        // and strides of as many numbers as dimensions, and memory in which all
        // items lie, as `Layout` has seen to. It stays while the block does,
        // which the next step makes the array's base.
        let array = unsafe {
            (self.new_from_dtype)(
                self.array,
                layout.items.dtype.into_ptr(),
                layout.shape.dimensions as c_int,
                layout.shape.as_slice().as_ptr(),
                strides,
                bytes.cast(),
                flags,
                null_mut(),
            )
        };
        if array.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: a new reference.
        let array = unsafe { PyObject::from_owned_ptr(py, array) };
        // SAFETY: an array, and a reference to its base that is given away even
        // if it fails.
        if unsafe { (self.set_base)(array.as_ptr(), block.into_ptr()) } < 0 {
            return Err(PyErr::fetch(py));
        }
        match class {
            // As a view of it: what the class does with its new array, that has
            // its base.
            Some(class) if class.as_type_ptr() != self.array => {
                // SAFETY: an array, no other dtype, and an array type; the
                // result is a new reference or null.
                let view = unsafe { (self.view)(array.as_ptr(), null_mut(), class.as_type_ptr()) };
                match view.is_null() {
                    true => Err(PyErr::fetch(py)),
                    // SAFETY: a new reference.
                    false => Ok(unsafe { PyObject::from_owned_ptr(py, view) }),
                }
            }
            _ => Ok(array),
        }
    }

    /// Refuses more dimensions than this numpy has room for, those of items that
    /// are arrays themselves included: older ones do not look.
    #[inline]
    fn check_dimensions(&self, py: Python<'_>, dimensions: usize, items: &Items) -> PyResult<()> {
        let most = if self.abi == 1 { 32 } else { MOST_DIMENSIONS };
        if dimensions <= FEW && self.abi != 1 {
            return Ok(());
        }
        let inner: usize = items.dtype.getattr(py, "ndim")?.extract(py)?;
        match dimensions + inner > most {
            true => Err(PyValueError::new_err(format!(
                "the array would have {} dimensions, and this numpy allows {most}",
                dimensions + inner
            ))),
            false => Ok(()),
        }
    }
}

/// The same through Python. The array's base is one of bytes, whose base is the
/// block.
fn array_in_python(
    py: Python<'_>,
    block: Py<Block>,
    layout: Layout,
    class: Option<&PyType>,
) -> PyResult<PyObject> {
    let numpy = py.import("numpy")?;
    let array: &PyType = numpy.getattr("ndarray")?.downcast()?;
    let class = class.unwrap_or(array);
    check_class(class, array.as_type_ptr())?;
    let buffer = numpy.getattr("asarray")?.call1((block,))?;
    let options = PyDict::new(py);
    options.set_item("shape", PyTuple::new(py, layout.shape.as_slice()))?;
    options.set_item("dtype", layout.items.dtype)?;
    options.set_item("buffer", buffer)?;
    options.set_item("offset", layout.offset)?;
    match layout.strides {
        Some(strides) => options.set_item("strides", PyTuple::new(py, strides.as_slice()))?,
        None => options.set_item("order", if layout.fortran { "F" } else { "C" })?,
    }
    let made = array.getattr("__new__")?.call((class,), Some(options))?;
    Ok(made.into())
}
