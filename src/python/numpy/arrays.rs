//! Arrays on blocks.
//!
//! They are made through numpy's own functions in C, found at run time in the
//! table that numpy keeps for extensions: five to ten times faster than through
//! Python, and one binary serves all versions. Places in the table never
//! change; what may is told by the version of the binary interface, which is
//! checked. With a version that is not known, or if SHARED_NUMPY_C_API is 0,
//! arrays are made in Python on the block's `__array_interface__`.

use super::super::gil;
use super::super::objects::Block;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::once_cell::GILOnceCell;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyLong, PyString, PyTuple, PyType};
use pyo3::{ffi, AsPyPointer};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

// Places in numpy's table.
const ABI_VERSION: usize = 0;
const ARRAY_TYPE: usize = 2;
const DTYPE_TYPE: usize = 3;
const DTYPE_FROM_NUMBER: usize = 45;
const NEW_FROM_DTYPE: usize = 94;
const VIEW: usize = 137;
const TO_DTYPE: usize = 174;
const API_VERSION: usize = 211;
const SET_BASE: usize = 282;
const SET_HANDLER: usize = 304;
const GET_HANDLER: usize = 305;

// Flags of arrays.
const C_ORDER: c_int = 1;
const F_ORDER: c_int = 2;
const OWNS_DATA: c_int = 4;
const ALIGNED: c_int = 0x100;
const WRITEABLE: c_int = 0x400;

/// The most dimensions that any numpy allows.
const MOST_DIMENSIONS: usize = 64;

/// The beginning of a dtype in C, common to all versions.
#[repr(C)]
struct Dtype {
    object: ffi::PyObject,
    class: *mut ffi::PyTypeObject,
    kind: c_char,
    code: c_char,
    byte_order: c_char,
    old_flags: u8,
    number: c_int,
    rest: DtypeRest,
}

/// What comes next depends on the version of the binary interface.
#[repr(C)]
union DtypeRest {
    one: DtypeRest1,
    two: DtypeRest2,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DtypeRest1 {
    size: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DtypeRest2 {
    flags: u64,
    size: isize,
}

/// Items hold references to objects.
const HAS_OBJECTS: u64 = 1;

type DtypeFromNumber = unsafe extern "C" fn(c_int) -> *mut ffi::PyObject;
type NewFromDtype = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    *mut ffi::PyObject,
    c_int,
    *const isize,
    *const isize,
    *mut c_void,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;
type View = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *mut ffi::PyObject,
    *mut ffi::PyTypeObject,
) -> *mut ffi::PyObject;
type SetBase = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> c_int;
type ToDtype = unsafe extern "C" fn(*mut ffi::PyObject, *mut *mut ffi::PyObject) -> c_int;
type SetHandler = unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;
type GetHandler = unsafe extern "C" fn() -> *mut ffi::PyObject;
type Version = unsafe extern "C" fn() -> c_uint;

/// numpy's functions in C.
struct Table {
    /// 1 or 2.
    abi: u32,
    array: *mut ffi::PyTypeObject,
    dtype: *mut ffi::PyTypeObject,
    dtype_from_number: DtypeFromNumber,
    new_from_dtype: NewFromDtype,
    set_base: SetBase,
    to_dtype: ToDtype,
    view: View,
    /// From numpy 1.22 on.
    handlers: Option<(GetHandler, SetHandler)>,
}

// SAFETY: pointers to what lives as long as the interpreter.
unsafe impl Send for Table {}
// SAFETY: as above; it is used with the interpreter held.
unsafe impl Sync for Table {}

/// How arrays are made.
enum Numpy {
    InC(Table),
    InPython,
}

fn numpy(py: Python<'_>) -> PyResult<&'static Numpy> {
    static NUMPY: GILOnceCell<Numpy> = GILOnceCell::new();
    if let Some(numpy) = NUMPY.get(py) {
        return Ok(numpy);
    }
    let found = find(py)?;
    Ok(NUMPY.get_or_init(py, || found))
}

/// "C" or "Python": how arrays are made.
pub fn way(py: Python<'_>) -> PyResult<&'static str> {
    Ok(match numpy(py)? {
        Numpy::InC(_) => "C",
        Numpy::InPython => "Python",
    })
}

fn find(py: Python<'_>) -> PyResult<Numpy> {
    py.import("numpy")?;
    if std::env::var("SHARED_NUMPY_C_API").is_ok_and(|value| value == "0") {
        return Ok(Numpy::InPython);
    }
    // The name that numpy 2 has, then the one before.
    let module = py
        .import("numpy._core._multiarray_umath")
        .or_else(|_| py.import("numpy.core._multiarray_umath"));
    let capsule = module.and_then(|module| module.getattr("_ARRAY_API"));
    let Ok(capsule) = capsule else {
        return Ok(Numpy::InPython);
    };
    // SAFETY: a live object; whatever it is, the answer is a pointer or null
    // with an exception set.
    let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) };
    if table.is_null() {
        drop(PyErr::fetch(py));
        return Ok(Numpy::InPython);
    }
    let table = table as *const *const c_void;
    let entry = |index: usize| table.wrapping_add(index);
    // SAFETY: numpy's table has had these entries, of these types, from 1.7 on,
    // and is never freed. That goes for all that follow.
    let abi: Version = unsafe { std::ptr::read(entry(ABI_VERSION).cast()) };
    // SAFETY: as above.
    let api: Version = unsafe { std::ptr::read(entry(API_VERSION).cast()) };
    // SAFETY: it takes nothing and touches nothing.
    let abi = unsafe { abi() };
    // SAFETY: as above.
    let api = unsafe { api() };
    let handlers = (api >= 0xf).then(|| {
        // SAFETY: versions from this on have the two entries.
        let get = unsafe { std::ptr::read(entry(GET_HANDLER).cast()) };
        // SAFETY: as above.
        (get, unsafe { std::ptr::read(entry(SET_HANDLER).cast()) })
    });
    let abi = match (abi, api) {
        // 1.16 and later.
        (0x0100_0009, 0xd..) => 1,
        (0x0200_0000, _) => 2,
        _ => return Ok(Numpy::InPython),
    };
    Ok(Numpy::InC(Table {
        abi,
        // SAFETY: as above.
        array: unsafe { std::ptr::read(entry(ARRAY_TYPE).cast()) },
        // SAFETY: as above.
        dtype: unsafe { std::ptr::read(entry(DTYPE_TYPE).cast()) },
        // SAFETY: as above.
        dtype_from_number: unsafe { std::ptr::read(entry(DTYPE_FROM_NUMBER).cast()) },
        // SAFETY: as above.
        new_from_dtype: unsafe { std::ptr::read(entry(NEW_FROM_DTYPE).cast()) },
        // SAFETY: as above.
        set_base: unsafe { std::ptr::read(entry(SET_BASE).cast()) },
        // SAFETY: as above.
        to_dtype: unsafe { std::ptr::read(entry(TO_DTYPE).cast()) },
        // SAFETY: as above.
        view: unsafe { std::ptr::read(entry(VIEW).cast()) },
        handlers,
    }))
}

/// What an array's items are.
pub struct Items {
    dtype: PyObject,
    size: usize,
}

impl Items {
    /// Reads what numpy takes for a dtype; float64 if there is none.
    ///
    /// # Errors
    /// `TypeError` for what is none, and for items that hold references: another
    /// process could not follow them.
    #[inline]
    pub fn new(py: Python<'_>, dtype: Option<&PyAny>) -> PyResult<Self> {
        let none = py.None();
        let dtype = dtype.unwrap_or(none.as_ref(py));
        let (dtype, size, has_objects) = match numpy(py)? {
            Numpy::InC(table) => {
                let dtype = table.to_dtype(py, dtype)?;
                let (size, has_objects) = table.facts(&dtype);
                (dtype, size, has_objects)
            }
            Numpy::InPython => {
                let dtype = py.import("numpy")?.getattr("dtype")?.call1((dtype,))?;
                let size = dtype.getattr("itemsize")?.extract()?;
                let has_objects = dtype.getattr("hasobject")?.is_true()?;
                (dtype.into(), size, has_objects)
            }
        };
        if has_objects {
            return Err(PyTypeError::new_err(format!(
                "{} holds references to Python objects, which mean nothing to another \
                 process: such arrays cannot lie in shared memory",
                dtype.as_ref(py).repr()?
            )));
        }
        Ok(Items { dtype, size })
    }

    /// Gives strings of no length the length 1, as numpy does in a new array.
    #[inline]
    pub fn with_length(self, py: Python<'_>) -> PyResult<Self> {
        match self.size {
            0 => self.with_length_1(py),
            _ => Ok(self),
        }
    }

    #[cold]
    fn with_length_1(self, py: Python<'_>) -> PyResult<Self> {
        let text: String = self.dtype.getattr(py, "str")?.extract(py)?;
        let kind = text.get(1..2).unwrap_or_default();
        match kind {
            "S" | "U" => {
                let longer = format!("{}1", &text[..2]);
                Items::new(py, Some(PyString::new(py, &longer)))
            }
            _ => Ok(self),
        }
    }
}

impl Table {
    #[inline]
    fn to_dtype(&self, py: Python<'_>, object: &PyAny) -> PyResult<PyObject> {
        // SAFETY: a live object.
        if unsafe { ffi::Py_TYPE(object.as_ptr()) } == self.dtype {
            return Ok(object.into());
        }
        let mut dtype = null_mut();
        // SAFETY: a live object, and a place for the result: a new reference.
        match unsafe { (self.to_dtype)(object.as_ptr(), &mut dtype) } {
            // SAFETY: the reference is ours.
            1 => Ok(unsafe { PyObject::from_owned_ptr(py, dtype) }),
            _ => Err(PyErr::fetch(py)),
        }
    }

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

    /// The last array of those that an array is a view of, itself if it is none, and what that
    /// one lies in, if it is no array.
    fn last_base<'py>(
        &self,
        py: Python<'py>,
        array: &'py Array,
    ) -> (&'py Array, Option<&'py PyAny>) {
        let mut last = array;
        while !last.base.is_null() {
            // SAFETY: a live object as long as the array is, as all that follow.
            let class = unsafe { ffi::Py_TYPE(last.base) };
            if class != self.array && Some(class) != own_class(py) {
                // SAFETY: as above.
                return (last, Some(unsafe { py.from_borrowed_ptr(last.base) }));
            }
            // SAFETY: an instance of numpy's array class or of one below it, which begin so in
            // every version.
            last = unsafe { &*(last.base as *const Array) };
        }
        (last, None)
    }

    /// The number of a dtype if that says all about it: of the one that numpy has for a
    /// kind of numbers.
    fn number_of(&self, py: Python<'_>, dtype: *mut ffi::PyObject) -> PyResult<Option<u8>> {
        // SAFETY: an array's dtype, an instance of numpy's class, which begins so in every
        // version.
        let number = unsafe { (*(dtype as *const Dtype)).number };
        if !is_simple(number) {
            return Ok(None);
        }
        let known = self.dtype_of(py, number as u8)?;
        Ok((known.as_ptr() == dtype).then_some(number as u8))
    }

    /// The dtype that numpy has for a kind of numbers.
    fn dtype_of(&self, py: Python<'_>, number: u8) -> PyResult<&'static PyObject> {
        static KNOWN: [GILOnceCell<PyObject>; 24] = [const { GILOnceCell::new() }; 24];
        let cell = &KNOWN[number as usize];
        if let Some(known) = cell.get(py) {
            return Ok(known);
        }
        // SAFETY: the number of a dtype that numpy has.
        let own = unsafe { (self.dtype_from_number)(number as c_int) };
        // SAFETY: a new reference, or null with an exception set.
        let own = unsafe { PyObject::from_owned_ptr_or_err(py, own)? };
        Ok(cell.get_or_init(py, || own))
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

    /// The bytes that an array's items take, one behind the other, and whether they
    /// hold references.
    fn extent(&self, py: Python<'_>, array: &Array) -> (usize, bool) {
        // SAFETY: an array has a dtype for as long as it lives.
        let dtype = unsafe { py.from_borrowed_ptr::<PyAny>(array.dtype) };
        let (size, has_objects) = self.facts(&dtype.into());
        let bytes = lengths_of(array)
            .iter()
            .fold(size, |bytes, length| bytes.saturating_mul(*length as usize));
        (bytes, has_objects)
    }

    /// The size of items, and whether they hold references.
    #[inline]
    fn facts(&self, dtype: &PyObject) -> (usize, bool) {
        // SAFETY: `to_dtype` returns instances of numpy's dtype only, which
        // begin so in every version.
        let dtype = unsafe { &*(dtype.as_ptr() as *const Dtype) };
        match self.abi {
            1 => {
                // SAFETY: the layout of this version.
                let rest = unsafe { dtype.rest.one };
                (
                    rest.size as usize,
                    dtype.old_flags as u64 & HAS_OBJECTS != 0,
                )
            }
            _ => {
                // SAFETY: the layout of this version.
                let rest = unsafe { dtype.rest.two };
                (rest.size as usize, rest.flags & HAS_OBJECTS != 0)
            }
        }
    }
}

/// The beginning of an array in C, common to all versions.
#[repr(C)]
struct Array {
    object: ffi::PyObject,
    data: *mut u8,
    dimensions: c_int,
    shape: *const isize,
    strides: *const isize,
    base: *mut ffi::PyObject,
    dtype: *mut ffi::PyObject,
    flags: c_int,
}

/// Numbers of the dtypes that their number says all about: bool, integers, floats and
/// complex numbers; and float16.
fn is_simple(number: c_int) -> bool {
    matches!(number, 0..=16 | 23)
}

/// What numpy's dtypes of these numbers are called, in one letter each.
const LETTERS: &[u8; 24] = b"?bBhHiIlLqQfdgFDG______e";

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

/// The class of arrays in shared memory, `shared_numpy.ndarray`.
static OWN_CLASS: GILOnceCell<Py<PyType>> = GILOnceCell::new();

/// Whether somebody has registered how its arrays are pickled.
static OWN_IS_REDUCED: AtomicBool = AtomicBool::new(false);

fn own_class(py: Python<'_>) -> Option<*mut ffi::PyTypeObject> {
    let class = OWN_CLASS.get(py).map(|class| class.as_ptr().cast());
    class.filter(|_| !OWN_IS_REDUCED.load(Ordering::Relaxed))
}

pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(know_class, module)?)
}

/// Know a class of arrays as that of those in shared memory.
///
/// Parameters
/// ----------
/// cls : type
///     A subclass of ``numpy.ndarray``; only the first one counts.
/// known : bool
///     False if its arrays are left to a pickler from now on. Of another class that says
///     nothing.
#[pyfunction(known = "true")]
#[pyo3(text_signature = "(cls, known=True)")]
fn know_class(py: Python<'_>, cls: Py<PyType>, known: bool) {
    if known {
        let _ = OWN_CLASS.set(py, cls);
    } else if OWN_CLASS.get(py).map(|own| own.as_ptr()) == Some(cls.as_ptr()) {
        OWN_IS_REDUCED.store(true, Ordering::Relaxed);
    }
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
pub struct Placed {
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
pub fn placed<'py>(py: Python<'py>, array: &'py PyAny) -> PyResult<Option<OnBlock<'py>>> {
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
    let placed = Placed {
        number,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
        offset,
        writeable: fields.flags & WRITEABLE != 0,
        is_own,
    };
    Ok(Some((block, placed)))
}

type OnBlock<'py> = (&'py PyCell<Block>, Placed);

/// Makes an array like a `Placed` one on a block.
///
/// # Errors
/// `ValueError` if it would lie outside, or there is no such array.
pub fn array_like(py: Python<'_>, block: Py<Block>, placed: &Placed) -> PyResult<PyObject> {
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

/// The lengths of an array's dimensions.
fn lengths_of(array: &Array) -> &[isize] {
    match array.dimensions as usize {
        0 => &[],
        // SAFETY: so many numbers are there, as long as the array.
        count => unsafe { std::slice::from_raw_parts(array.shape, count) },
    }
}

/// The strides of an array's dimensions.
fn strides_of(array: &Array) -> &[isize] {
    match array.dimensions as usize {
        0 => &[],
        // SAFETY: so many numbers are there, as long as the array.
        count => unsafe { std::slice::from_raw_parts(array.strides, count) },
    }
}

/// Has numpy allocate in this thread through a handler (NEP 49), which is made of the
/// one in force; false if this numpy has none, or one that is not known.
pub fn set_handler(
    py: Python<'_>,
    make: impl FnOnce(&PyAny) -> PyResult<Option<PyObject>>,
) -> PyResult<bool> {
    let Numpy::InC(Table {
        handlers: Some((get, set)),
        ..
    }) = numpy(py)?
    else {
        return Ok(false);
    };
    // SAFETY: numpy's function, which takes nothing.
    let current = unsafe { get() };
    // SAFETY: a new reference, or null with an exception set.
    let current: &PyAny = unsafe { py.from_owned_ptr_or_err(current)? };
    let Some(handler) = make(current)? else {
        return Ok(false);
    };
    // SAFETY: a capsule as numpy wants it, of which it takes a reference of its own.
    let before = unsafe { set(handler.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    let _before: &PyAny = unsafe { py.from_owned_ptr_or_err(before)? };
    Ok(true)
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

    /// Copies the items to `made`, an array of the same dtype, shape and order
    /// that nobody else has, on `bytes` bytes that begin at `to`.
    pub fn copy_to(
        &self,
        py: Python<'_>,
        made: &PyObject,
        to: *mut u8,
        bytes: usize,
    ) -> PyResult<()> {
        let Some(from) = self.data else {
            let numpy = py.import("numpy")?;
            return numpy
                .call_method1("copyto", (made, self.object))
                .map(|_| ());
        };
        // The array lives while its reference is held, and numpy moves no memory
        // that somebody else refers to; what others write into it meanwhile may or
        // may not be copied, as in numpy's own copy.
        //
        // SAFETY: the source has as many items as the target, whose block has
        // room for them and is new; both one behind the other.
        unsafe { gil::copy(py, from, to, bytes) };
        Ok(())
    }
}

/// So many dimensions need no memory of their own.
const FEW: usize = 6;

/// A number for each dimension: how many items, or how many bytes to the next.
pub struct Shape {
    few: [isize; FEW],
    many: Vec<isize>,
    dimensions: usize,
}

impl Shape {
    /// Reads an integer or a sequence of them.
    #[inline]
    pub fn new(shape: &PyAny) -> PyResult<Self> {
        let shape = Self::any("shape", shape)?;
        match shape.as_slice().iter().find(|length| **length < 0) {
            Some(length) => Err(PyValueError::new_err(format!(
                "negative dimensions are not allowed: {length} in the shape"
            ))),
            None => Ok(shape),
        }
    }

    pub(super) fn empty() -> Self {
        Shape {
            few: [0; FEW],
            many: Vec::new(),
            dimensions: 0,
        }
    }

    #[inline]
    fn any(what: &str, numbers: &PyAny) -> PyResult<Self> {
        let mut found = Shape::empty();
        if let Ok(tuple) = numbers.downcast::<PyTuple>() {
            for number in tuple {
                found.push(what, Self::number(what, number)?)?;
            }
        } else if numbers.is_instance::<PyLong>()? {
            found.push(what, Self::number(what, numbers)?)?;
        } else if let Ok(number) = numbers.extract() {
            found.push(what, number)?;
        } else {
            for number in numbers.iter()? {
                found.push(what, Self::number(what, number?)?)?;
            }
        }
        Ok(found)
    }

    /// Of numbers as numpy has them.
    fn of(numbers: &[isize]) -> PyResult<Self> {
        let mut shape = Shape::empty();
        for number in numbers {
            shape.push("shape", *number)?;
        }
        Ok(shape)
    }

    #[inline]
    fn number(what: &str, number: &PyAny) -> PyResult<isize> {
        number.extract().map_err(|error: PyErr| {
            match error.is_instance::<PyOverflowError>(number.py()) {
                true => PyValueError::new_err(format!("{number} in {what} is too large")),
                false => error,
            }
        })
    }

    #[inline]
    fn push(&mut self, what: &str, number: isize) -> PyResult<()> {
        if self.dimensions < FEW {
            self.few[self.dimensions] = number;
        } else if self.dimensions < MOST_DIMENSIONS {
            if self.many.is_empty() {
                self.many.extend(self.few);
            }
            self.many.push(number);
        } else {
            return Err(PyValueError::new_err(format!(
                "{what} has more than {MOST_DIMENSIONS} dimensions"
            )));
        }
        self.dimensions += 1;
        Ok(())
    }

    #[inline]
    fn as_slice(&self) -> &[isize] {
        match self.dimensions <= FEW {
            true => &self.few[..self.dimensions],
            false => &self.many,
        }
    }

    /// The bytes that items in this shape take, one behind the other.
    ///
    /// # Errors
    /// `ValueError` if no memory could have so many.
    #[inline]
    pub fn bytes(&self, items: &Items) -> PyResult<u64> {
        let mut bytes = items.size;
        for length in self.as_slice() {
            bytes = bytes.saturating_mul(*length as usize);
            if bytes > isize::MAX as usize {
                return Err(PyValueError::new_err(format!(
                    "an array of shape {:?} with items of {} bytes is too large",
                    self.as_slice(),
                    items.size
                )));
            }
        }
        Ok(bytes as u64)
    }
}

/// How items lie in a block.
pub struct Layout {
    items: Items,
    shape: Shape,
    /// None: one behind the other, in the order that is said.
    strides: Option<Shape>,
    fortran: bool,
    offset: usize,
}

impl Layout {
    /// Items one behind the other from the block's beginning.
    pub fn whole(items: Items, shape: Shape, fortran: bool) -> Self {
        Layout {
            items,
            shape,
            strides: None,
            fortran,
            offset: 0,
        }
    }

    /// Has the items begin so many bytes into the block.
    pub fn begin_at(&mut self, offset: usize) {
        self.offset = offset;
    }

    /// Items from `offset` on, at `strides` or in C order, within `room` bytes.
    ///
    /// # Errors
    /// `ValueError` if an item would lie outside.
    pub fn within(
        room: u64,
        items: Items,
        shape: Shape,
        strides: Option<&PyAny>,
        offset: usize,
    ) -> PyResult<Self> {
        let strides = match strides {
            Some(strides) => Shape::any("strides", strides)?,
            None => contiguous(&items, &shape)?,
        };
        Self::at(room, items, shape, strides, offset)
    }

    /// Items from `offset` on, at `strides`, within `room` bytes.
    ///
    /// # Errors
    /// `ValueError` if an item would lie outside.
    pub fn at(
        room: u64,
        items: Items,
        shape: Shape,
        strides: Shape,
        offset: usize,
    ) -> PyResult<Self> {
        if strides.dimensions != shape.dimensions {
            return Err(PyValueError::new_err(format!(
                "there are {} strides for {} dimensions",
                strides.dimensions, shape.dimensions
            )));
        }
        let (mut low, mut high) = (offset as i128, offset as i128);
        let mut is_empty = false;
        for (length, stride) in shape.as_slice().iter().zip(strides.as_slice()) {
            // A product of two such numbers fits; a sum of them need not.
            let reach = (*length as i128 - 1).max(0) * *stride as i128;
            is_empty |= *length == 0;
            let end = if reach < 0 { &mut low } else { &mut high };
            *end = end.saturating_add(reach);
        }
        if is_empty {
            low = offset as i128;
            high = low;
        } else {
            high = high.saturating_add(items.size as i128);
        }
        if low < 0 || high > room as i128 {
            return Err(PyValueError::new_err(format!(
                "the array would take the bytes {low} to {high} of a block that has {room}: \
                 shape {:?}, strides {:?}, offset {offset}, items of {} bytes",
                shape.as_slice(),
                strides.as_slice(),
                items.size
            )));
        }
        Ok(Layout {
            items,
            shape,
            strides: Some(strides),
            fortran: false,
            offset,
        })
    }
}

/// The strides of items one behind the other.
fn contiguous(items: &Items, shape: &Shape) -> PyResult<Shape> {
    shape.bytes(items)?;
    let mut strides = Shape::empty();
    for dimension in 0..shape.dimensions {
        let inner = shape.as_slice()[dimension + 1..].iter();
        let count = inner.fold(1, |count: isize, length| {
            count.wrapping_mul((*length).max(1))
        });
        strides.push("strides", count.wrapping_mul(items.size as isize))?;
    }
    Ok(strides)
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

/// Refuses a class that is not `array` and no subclass of it.
fn check_class(class: &PyType, array: *mut ffi::PyTypeObject) -> PyResult<()> {
    // SAFETY: two types.
    match unsafe { ffi::PyType_IsSubtype(class.as_type_ptr(), array) } {
        0 => Err(PyTypeError::new_err(format!(
            "{} is no subclass of numpy.ndarray",
            class.name().unwrap_or("it")
        ))),
        _ => Ok(()),
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
