//! numpy's functions in C, found at run time in the table that numpy keeps for extensions.
//!
//! Through them an array is made five to ten times faster than through Python, and one binary
//! serves all versions of numpy. An index in the table never changes its meaning; what may change
//! is told by the version of the binary interface, which is checked. With a version that is not
//! known, or if SHARED_NUMPY_C_API is 0, arrays are made in Python.

use pyo3::exceptions::PyTypeError;
use pyo3::once_cell::GILOnceCell;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{ffi, AsPyPointer};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

// Places in numpy's table.
pub(super) const ABI_VERSION: usize = 0;
pub(super) const ARRAY_TYPE: usize = 2;
pub(super) const DTYPE_TYPE: usize = 3;
pub(super) const DTYPE_FROM_NUMBER: usize = 45;
pub(super) const NEW_FROM_DTYPE: usize = 94;
pub(super) const VIEW: usize = 137;
pub(super) const TO_DTYPE: usize = 174;
pub(super) const API_VERSION: usize = 211;
pub(super) const SET_BASE: usize = 282;
pub(super) const SET_HANDLER: usize = 304;
pub(super) const GET_HANDLER: usize = 305;

// Flags of arrays.
pub(super) const C_ORDER: c_int = 1;
pub(super) const F_ORDER: c_int = 2;
pub(super) const OWNS_DATA: c_int = 4;
pub(super) const ALIGNED: c_int = 0x100;
pub(super) const WRITEABLE: c_int = 0x400;

/// The most dimensions that any numpy allows.
pub(super) const MOST_DIMENSIONS: usize = 64;

/// The beginning of a dtype in C, common to all versions.
#[repr(C)]
pub(super) struct Dtype {
    pub object: ffi::PyObject,
    pub class: *mut ffi::PyTypeObject,
    pub kind: c_char,
    pub code: c_char,
    pub byte_order: c_char,
    pub old_flags: u8,
    pub number: c_int,
    pub rest: DtypeRest,
}

/// What comes next depends on the version of the binary interface.
#[repr(C)]
pub(super) union DtypeRest {
    one: DtypeRest1,
    two: DtypeRest2,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct DtypeRest1 {
    size: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct DtypeRest2 {
    flags: u64,
    size: isize,
}

/// Items hold references to objects.
pub(super) const HAS_OBJECTS: u64 = 1;

pub(super) type DtypeFromNumber = unsafe extern "C" fn(c_int) -> *mut ffi::PyObject;
pub(super) type NewFromDtype = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    *mut ffi::PyObject,
    c_int,
    *const isize,
    *const isize,
    *mut c_void,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;
pub(super) type View = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *mut ffi::PyObject,
    *mut ffi::PyTypeObject,
) -> *mut ffi::PyObject;
pub(super) type SetBase = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> c_int;
pub(super) type ToDtype =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut *mut ffi::PyObject) -> c_int;
pub(super) type SetHandler = unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;
pub(super) type GetHandler = unsafe extern "C" fn() -> *mut ffi::PyObject;
pub(super) type Version = unsafe extern "C" fn() -> c_uint;

/// numpy's functions in C.
pub(super) struct Table {
    /// 1 or 2.
    pub abi: u32,
    pub array: *mut ffi::PyTypeObject,
    pub dtype: *mut ffi::PyTypeObject,
    pub dtype_from_number: DtypeFromNumber,
    pub new_from_dtype: NewFromDtype,
    pub set_base: SetBase,
    pub to_dtype: ToDtype,
    pub view: View,
    /// From numpy 1.22 on.
    pub handlers: Option<(GetHandler, SetHandler)>,
}

// SAFETY: the pointers are to numpy's table and types, which live as long as the interpreter.
unsafe impl Send for Table {}
// SAFETY: the pointers are read only, and numpy's functions are called with the GIL held, which the
// parameter `py` of each method shows.
unsafe impl Sync for Table {}

/// How arrays are made.
pub(super) enum Numpy {
    InC(Table),
    InPython,
}

pub(super) fn numpy(py: Python<'_>) -> PyResult<&'static Numpy> {
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

pub(super) fn find(py: Python<'_>) -> PyResult<Numpy> {
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
    // SAFETY: numpy's table has an entry at this index, of this type, in every version from 1.7
    // on, and is never freed.
    let abi: Version = unsafe { std::ptr::read(entry(ABI_VERSION).cast()) };
    // SAFETY: numpy's table has an entry at this index, of this type, in every version from 1.7
    // on, and is never freed.
    let api: Version = unsafe { std::ptr::read(entry(API_VERSION).cast()) };
    // SAFETY: it takes nothing and touches nothing.
    let abi = unsafe { abi() };
    // SAFETY: it takes nothing and touches nothing.
    let api = unsafe { api() };
    let handlers = (api >= 0xf).then(|| {
        // SAFETY: versions from this on have the two entries.
        let get = unsafe { std::ptr::read(entry(GET_HANDLER).cast()) };
        // SAFETY: versions from this on have the two entries.
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
        // SAFETY: an entry of this type in every version from 1.7 on.
        array: unsafe { std::ptr::read(entry(ARRAY_TYPE).cast()) },
        // SAFETY: an entry of this type in every version from 1.7 on.
        dtype: unsafe { std::ptr::read(entry(DTYPE_TYPE).cast()) },
        // SAFETY: an entry of this type in every version from 1.7 on.
        dtype_from_number: unsafe { std::ptr::read(entry(DTYPE_FROM_NUMBER).cast()) },
        // SAFETY: an entry of this type in every version from 1.7 on.
        new_from_dtype: unsafe { std::ptr::read(entry(NEW_FROM_DTYPE).cast()) },
        // SAFETY: an entry of this type in every version from 1.7 on.
        set_base: unsafe { std::ptr::read(entry(SET_BASE).cast()) },
        // SAFETY: an entry of this type in every version from 1.7 on.
        to_dtype: unsafe { std::ptr::read(entry(TO_DTYPE).cast()) },
        // SAFETY: an entry of this type in every version from 1.7 on.
        view: unsafe { std::ptr::read(entry(VIEW).cast()) },
        handlers,
    }))
}

/// The beginning of an array in C, common to all versions.
#[repr(C)]
pub(super) struct Array {
    pub object: ffi::PyObject,
    pub data: *mut u8,
    pub dimensions: c_int,
    pub shape: *const isize,
    pub strides: *const isize,
    pub base: *mut ffi::PyObject,
    pub dtype: *mut ffi::PyObject,
    pub flags: c_int,
}

/// Numbers of the dtypes that their number says all about: bool, integers, floats and
/// complex numbers; and float16.
pub(super) fn is_simple(number: c_int) -> bool {
    matches!(number, 0..=16 | 23)
}

/// What numpy's dtypes of these numbers are called, in one letter each.
pub(super) const LETTERS: &[u8; 24] = b"?bBhHiIlLqQfdgFDG______e";

/// The class of arrays in shared memory, `shared_numpy.ndarray`.
pub(super) static OWN_CLASS: GILOnceCell<Py<PyType>> = GILOnceCell::new();

/// Whether the program has registered how its arrays are pickled.
pub(super) static OWN_IS_REDUCED: AtomicBool = AtomicBool::new(false);

pub(super) fn own_class(py: Python<'_>) -> Option<*mut ffi::PyTypeObject> {
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
pub(super) fn know_class(py: Python<'_>, cls: Py<PyType>, known: bool) {
    if known {
        let _ = OWN_CLASS.set(py, cls);
    } else if OWN_CLASS.get(py).map(|own| own.as_ptr()) == Some(cls.as_ptr()) {
        OWN_IS_REDUCED.store(true, Ordering::Relaxed);
    }
}

/// The lengths of an array's dimensions.
pub(super) fn lengths_of(array: &Array) -> &[isize] {
    match array.dimensions as usize {
        0 => &[],
        // SAFETY: so many numbers are there, as long as the array.
        count => unsafe { std::slice::from_raw_parts(array.shape, count) },
    }
}

/// The strides of an array's dimensions.
pub(super) fn strides_of(array: &Array) -> &[isize] {
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

/// Refuses a class that is not `array` and no subclass of it.
pub(super) fn check_class(class: &PyType, array: *mut ffi::PyTypeObject) -> PyResult<()> {
    // SAFETY: two types.
    match unsafe { ffi::PyType_IsSubtype(class.as_type_ptr(), array) } {
        0 => Err(PyTypeError::new_err(format!(
            "{} is no subclass of numpy.ndarray",
            class.name().unwrap_or("it")
        ))),
        _ => Ok(()),
    }
}

impl Table {
    #[inline]
    pub fn to_dtype(&self, py: Python<'_>, object: &PyAny) -> PyResult<PyObject> {
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

    /// The last array of those that an array is a view of, itself if it is none, and what that
    /// one lies in, if it is no array.
    pub fn last_base<'py>(
        &self,
        py: Python<'py>,
        array: &'py Array,
    ) -> (&'py Array, Option<&'py PyAny>) {
        let mut last = array;
        while !last.base.is_null() {
            // SAFETY: a live object as long as the array is, as all that follow.
            let class = unsafe { ffi::Py_TYPE(last.base) };
            if class != self.array && Some(class) != own_class(py) {
                // SAFETY: `base` is a live object for as long as the array is, which `'py` borrows.
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
    pub fn number_of(&self, py: Python<'_>, dtype: *mut ffi::PyObject) -> PyResult<Option<u8>> {
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
    pub fn dtype_of(&self, py: Python<'_>, number: u8) -> PyResult<&'static PyObject> {
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

    /// The bytes that an array's items take, one behind the other, and whether they
    /// hold references.
    pub fn extent(&self, py: Python<'_>, array: &Array) -> (usize, bool) {
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
    pub fn facts(&self, dtype: &PyObject) -> (usize, bool) {
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
