//! Simple things as bytes, without a pickler.
//!
//! Most of what processes say to each other is simple: a function and small arrays, numbers,
//! text, in tuples, lists and dicts. To pickle that takes longer than to carry it, and most of
//! the time goes into what could be else. Here it is written down, or refused as soon as
//! anything in it is not of these very classes.
//!
//! ```text
//! stream    1, thing, and what may follow
//! thing     N | T | F
//!           i i64 | f f64
//!           s length u32, UTF-8 | b length u32, bytes
//!           t count u32, things | l count u32, things | d count u32, keys and values
//!           g length u32, module, length u32, name
//!           a number of the dtype u8, flags u8, dimensions u8, lengths i64, items
//!           r number of the dtype u8, flags u8, dimensions u8, lengths and strides i64,
//!             offset u64, reference
//!           B length u64, reference
//! reference length u8, handle, to 100 bytes
//! ```
//!
//! An array in shared memory is written as the handle of its block and where it lies in that; a
//! large plain one is copied into a block first, which becomes the receiver's own, and so are long
//! bytes, which the receiver copies out of it. No handle is made, nor anything copied, before all
//! else was written. No pickle begins with 1.

use super::super::default_arena::find_default;
use super::super::error::exception;
use super::super::gil;
use super::super::handles::{cancel_all, encoded, give_up, received};
use super::super::new_arrays::copy;
use super::super::numpy::{self, Placed, Small};
use super::super::objects::Block;
use super::super::operation::work;
use super::super::process_tree::watch_end;
use crate::arena::handle::{Handle, LONGEST_HANDLE};
use crate::process;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::once_cell::GILOnceCell;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use pyo3::AsPyPointer;
use std::cell::RefCell;
use std::ops::Range;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    let py = module.py();
    let class = py.import("types")?.getattr("FunctionType")?.into();
    // (It is loaded in one interpreter only.)
    let _ = FUNCTIONS.set(py, class);
    module.add_function(wrap_pyfunction!(terse, module)?)?;
    module.add_function(wrap_pyfunction!(loads, module)?)
}

/// With what a stream begins.
const MARK: u8 = 1;
/// A pickler is as fast with more things, or longer text, or more of all than that.
const MOST: usize = 256;
const LONG: usize = 1 << 12;
const FULL: usize = 1 << 18;
/// Text that is longer and that somebody else refers to might come again.
const SHORT: usize = 64;
/// How deep things may lie in each other.
const DEEP: usize = 20;

/// Flags of arrays.
const FORTRAN: u8 = 1;
const WRITEABLE: u8 = 2;
/// The class is `shared_numpy.ndarray`.
const OWN_CLASS: u8 = 4;
/// The block becomes the receiver's own.
const PRIVATE: u8 = 8;

/// Why something is not written.
enum Not {
    Simple,
    Possible(PyErr),
}

impl From<PyErr> for Not {
    fn from(error: PyErr) -> Self {
        Not::Possible(error)
    }
}

/// Write a simple thing down.
///
/// Parameters
/// ----------
/// thing : object
/// below : int
///     Plain arrays of fewer bytes are written as they are; bytes, too, up to 4,096.
/// end : bytes
///     What is to follow.
/// handles : list of bytes, optional
///     Those of arrays in shared memory are appended to it, also should this fail half-way, and
///     of large plain arrays and long bytes, which are copied there. Without it there are none
///     of these.
/// limit : int, optional
///     Arrays and bytes of so many bytes are not copied.
///
/// Returns
/// -------
/// bytes or None
///     For ``loads``. None if it is not simple: other classes, subclasses, plain arrays with
///     gaps, long text, functions that are not found by their name at the top of a module,
///     many things, and what is in it twice.
///
/// Raises
/// ------
/// ArenaFullError
///     There is no room for a copy, or for a handle.
/// ValueError
///     An array was unlinked.
#[pyfunction(end = "None", handles = "None", limit = "None")]
#[pyo3(text_signature = "(thing, below, end=None, handles=None, limit=None)")]
fn terse<'py>(
    py: Python<'py>,
    thing: &PyAny,
    below: usize,
    end: Option<&[u8]>,
    handles: Option<&'py PyList>,
    limit: Option<usize>,
) -> PyResult<Option<&'py PyBytes>> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut bytes = BUFFER.with(RefCell::take);
    bytes.clear();
    bytes.push(MARK);
    let mut writer = Writer {
        py,
        below,
        bytes,
        count: 0,
        seen: Vec::new(),
        large: below..limit.unwrap_or(usize::MAX),
        handles,
        later: Vec::new(),
    };
    let written = writer.thing(thing, 0).and_then(|()| writer.send());
    let bytes = writer.bytes;
    let stream = match written {
        Ok(()) => {
            let end = end.unwrap_or_default();
            let copied = PyBytes::new_with(py, bytes.len() + end.len(), |to| {
                let (stream, rest) = to.split_at_mut(bytes.len());
                stream.copy_from_slice(&bytes);
                rest.copy_from_slice(end);
                Ok(())
            });
            copied.map(Some)
        }
        Err(Not::Simple) => Ok(None),
        Err(Not::Possible(error)) => Err(error),
    };
    if bytes.capacity() <= KEPT {
        BUFFER.with(|buffer| buffer.replace(bytes));
    }
    stream
}

/// How long a buffer a thread keeps.
const KEPT: usize = 1 << 16;

struct Writer<'py> {
    py: Python<'py>,
    below: usize,
    bytes: Vec<u8>,
    count: usize,
    /// What somebody else refers to, too, so that it might come again.
    seen: Vec<*mut ffi::PyObject>,
    /// How many bytes an array has that is copied into shared memory.
    large: Range<usize>,
    handles: Option<&'py PyList>,
    /// Arrays that go by handle.
    later: Vec<Later>,
}

/// Something for which there was room left.
struct Later {
    thing: PyObject,
    place: usize,
    kind: Kind,
}

/// What goes by handle.
#[derive(Clone, Copy)]
enum Kind {
    /// An array in shared memory, of so many dimensions.
    Shared(usize),
    /// A large plain array, which is copied there.
    Plain(usize),
    /// Long bytes, which are.
    Bytes,
}

impl Kind {
    /// How much room there is left for it.
    fn room(self) -> usize {
        let head = match self {
            Kind::Shared(dimensions) | Kind::Plain(dimensions) => 4 + 16 * dimensions + 8,
            Kind::Bytes => 1 + 8,
        };
        head + 1 + LONGEST_HANDLE
    }
}

impl<'py> Writer<'py> {
    fn thing(&mut self, thing: &'py PyAny, depth: usize) -> Result<(), Not> {
        self.count += 1;
        if self.count > MOST || depth > DEEP || self.bytes.len() > FULL {
            return Err(Not::Simple);
        }
        match self.atom(thing)? {
            true => Ok(()),
            false => self.object(thing, depth),
        }
    }

    /// Writes a thing that has no others in it; whether it is one. No code of others' runs.
    fn atom(&mut self, thing: &'py PyAny) -> Result<bool, Not> {
        let class: *const ffi::PyTypeObject = thing.get_type_ptr();
        if thing.is_none() {
            self.bytes.push(b'N');
        } else if class == &raw const ffi::PyBool_Type {
            self.bytes.push(if thing.is_true()? { b'T' } else { b'F' });
        } else if class == &raw const ffi::PyLong_Type {
            let number: i64 = thing.extract().map_err(|_| Not::Simple)?;
            self.bytes.push(b'i');
            self.bytes.extend_from_slice(&number.to_le_bytes());
        } else if class == &raw const ffi::PyFloat_Type {
            let number: f64 = thing.extract()?;
            self.bytes.push(b'f');
            self.bytes.extend_from_slice(&number.to_le_bytes());
        } else if class == &raw const ffi::PyUnicode_Type {
            let text: &PyString = thing.downcast().map_err(PyErr::from)?;
            self.check_length(thing, text.len()?)?;
            // (Half of a surrogate pair has no UTF-8.)
            let text = text.to_str().map_err(|_| Not::Simple)?;
            self.bytes.push(b's');
            self.measured(text.as_bytes());
        } else if class == &raw const ffi::PyBytes_Type {
            let bytes: &PyBytes = thing.downcast().map_err(PyErr::from)?;
            let bytes = bytes.as_bytes();
            let is_long = bytes.len() > LONG && self.large.contains(&bytes.len());
            if is_long && self.handles.is_some() {
                self.check_again(thing)?;
                self.leave_room(thing.into(), Kind::Bytes);
                return Ok(true);
            }
            self.check_length(thing, bytes.len())?;
            self.bytes.push(b'b');
            self.measured(bytes);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Refuses text that is long, or of some length and might have come before.
    fn check_length(&mut self, thing: &PyAny, length: usize) -> Result<(), Not> {
        match length {
            _ if length > LONG => Err(Not::Simple),
            _ if length > SHORT => self.check_again(thing),
            _ => Ok(()),
        }
    }

    /// Refuses what might have come before.
    fn check_again(&mut self, thing: &PyAny) -> Result<(), Not> {
        match self.might_come_again(thing) {
            true => Err(Not::Simple),
            false => Ok(()),
        }
    }

    /// Notes a thing that somebody else refers to, too; whether it was noted before.
    fn might_come_again(&mut self, thing: &PyAny) -> bool {
        let pointer = thing.as_ptr();
        // SAFETY: a live object. One that is referred to once cannot come twice.
        if unsafe { ffi::Py_REFCNT(pointer) } <= 1 {
            return false;
        }
        let again = self.seen.contains(&pointer);
        self.seen.push(pointer);
        again
    }

    fn object(&mut self, thing: &'py PyAny, depth: usize) -> Result<(), Not> {
        self.check_again(thing)?;
        // To find a function, keys are compared: by whoever's code. What holds this may lose it
        // then.
        let _kept: PyObject = thing.into();
        let pointer = thing.as_ptr();
        let class: *const ffi::PyTypeObject = thing.get_type_ptr();
        if class == &raw const ffi::PyTuple_Type {
            let tuple: &PyTuple = thing.downcast().map_err(PyErr::from)?;
            self.count_of(b't', tuple.len())?;
            for index in 0..tuple.len() {
                // SAFETY: the tuple has so many, and keeps them.
                let item = unsafe { ffi::PyTuple_GetItem(pointer, index as ffi::Py_ssize_t) };
                self.item(item, depth)?;
            }
        } else if class == &raw const ffi::PyList_Type {
            let list: &PyList = thing.downcast().map_err(PyErr::from)?;
            let count = list.len();
            self.count_of(b'l', count)?;
            for index in 0..count {
                if list.len() != count {
                    return Err(Not::Simple);
                }
                // SAFETY: the list has so many.
                let item = unsafe { ffi::PyList_GetItem(pointer, index as ffi::Py_ssize_t) };
                self.item(item, depth)?;
            }
        } else if class == &raw const ffi::PyDict_Type {
            let dict: &PyDict = thing.downcast().map_err(PyErr::from)?;
            let count = dict.len();
            self.count_of(b'd', count)?;
            let (mut place, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            let mut pairs = 0;
            // SAFETY: a dict, and places for what it has.
            while unsafe { ffi::PyDict_Next(pointer, &mut place, &mut key, &mut value) } != 0 {
                // SAFETY: it is there now.
                let key = unsafe { self.py.from_borrowed_ptr::<PyAny>(key) };
                // (What is no atom could run code, and the value be gone.)
                if !self.atom(key)? {
                    return Err(Not::Simple);
                }
                self.item(value, depth)?;
                pairs += 1;
                if dict.len() != count {
                    return Err(Not::Simple);
                }
            }
            if pairs != count {
                return Err(Not::Simple);
            }
        } else if class == function_class(self.py)?.cast() {
            self.function(thing)?;
        } else {
            match numpy::small(self.py, thing, self.below)? {
                Some(small) => self.array(&small)?,
                None => self.reference(thing)?,
            }
        }
        Ok(())
    }

    /// Leaves room for an array that goes by handle.
    fn reference(&mut self, array: &'py PyAny) -> Result<(), Not> {
        if self.handles.is_none() {
            return Err(Not::Simple);
        }
        let shared = numpy::placed(self.py, array)?;
        let shared = shared.filter(|(block, _)| !block.borrow().is_private());
        let kind = match &shared {
            Some((_, placed)) => Kind::Shared(placed.shape.len()),
            None if numpy::is_large(self.py, array, self.large.clone())? => {
                Kind::Plain(array.getattr("ndim")?.extract()?)
            }
            None => return Err(Not::Simple),
        };
        self.leave_room(array.into(), kind);
        Ok(())
    }

    fn leave_room(&mut self, thing: PyObject, kind: Kind) {
        let place = self.bytes.len();
        self.bytes.resize(place + kind.room(), 0);
        self.later.push(Later { thing, place, kind });
    }

    /// Makes the handles, and writes what there was room left for.
    fn send(&mut self) -> Result<(), Not> {
        let py = self.py;
        let Some(handles) = self.handles else {
            return Ok(());
        };
        let first = handles.len();
        for later in std::mem::take(&mut self.later) {
            let Some((block, place)) = self.placed(&later)? else {
                let made = handles.get_slice(first, handles.len());
                handles.del_slice(first, handles.len())?;
                cancel_all(py, made)?;
                return Err(Not::Simple);
            };
            let handle = block.borrow(py).handle(py, false)?;
            let encoded = encoded(py, &handle);
            if let Err(error) = handles.append(encoded) {
                give_up(py, &handle);
                return Err(error.into());
            }
            let encoded = encoded.as_bytes();
            let place = self.fill(place, &[encoded.len() as u8]);
            self.fill(place, encoded);
        }
        Ok(())
    }

    /// Lays down what goes by handle, if it is not in shared memory, and writes how it lies there.
    ///
    /// Returns the block, and where its handle is to be written; None if another thread has
    /// changed the array meanwhile.
    fn placed(&mut self, later: &Later) -> Result<Option<(Py<Block>, usize)>, Not> {
        let py = self.py;
        let thing = later.thing.as_ref(py);
        let (sent, dimensions, moves) = match later.kind {
            Kind::Shared(dimensions) => (thing, dimensions, false),
            Kind::Plain(dimensions) => {
                (copy(py, thing, None, true)?.into_ref(py), dimensions, true)
            }
            Kind::Bytes => {
                let bytes: &PyBytes = thing.downcast().map_err(PyErr::from)?;
                let bytes = bytes.as_bytes();
                let place = self.fill(later.place, b"B");
                let place = self.fill(place, &(bytes.len() as u64).to_le_bytes());
                return Ok(Some((in_block(py, bytes)?, place)));
            }
        };
        let placed = numpy::placed(py, sent)?;
        let Some((block, placed)) = placed.filter(|(_, it)| it.shape.len() == dimensions) else {
            return Ok(None);
        };
        // (The array may lose it while the handle is made.)
        let block: Py<Block> = block.into();
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let writeable = match moves {
            true => numpy::is_writeable(thing)?,
            false => placed.writeable,
        };
        let flags = flag(writeable, WRITEABLE) | flag(placed.is_own, OWN_CLASS);
        let flags = flags | flag(moves, PRIVATE);
        let head = [b'r', placed.number, flags, dimensions as u8];
        let mut place = self.fill(later.place, &head);
        for (length, stride) in placed.shape.iter().zip(&placed.strides) {
            place = self.fill(place, &(*length as i64).to_le_bytes());
            place = self.fill(place, &(*stride as i64).to_le_bytes());
        }
        let place = self.fill(place, &(placed.offset as u64).to_le_bytes());
        Ok(Some((block, place)))
    }

    /// Writes where room was left, and returns the place behind it.
    fn fill(&mut self, place: usize, bytes: &[u8]) -> usize {
        let end = place + bytes.len();
        self.bytes[place..end].copy_from_slice(bytes);
        end
    }

    /// Writes what lies in something else, by a borrowed reference.
    fn item(&mut self, item: *mut ffi::PyObject, depth: usize) -> Result<(), Not> {
        // SAFETY: it is there now, and kept before any code of others' may run. (This takes no
        // reference, which would be one more than one.)
        self.thing(unsafe { self.py.from_borrowed_ptr(item) }, depth + 1)
    }

    fn count_of(&mut self, tag: u8, count: usize) -> Result<(), Not> {
        if count > MOST {
            return Err(Not::Simple);
        }
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&(count as u32).to_le_bytes());
        Ok(())
    }

    fn measured(&mut self, bytes: &[u8]) {
        self.bytes
            .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes where a function is found, if it is found there.
    fn function(&mut self, function: &'py PyAny) -> Result<(), Not> {
        let as_text = |name| -> Result<&PyString, Not> {
            let text: &PyAny = function.getattr(name)?;
            let class: *const ffi::PyTypeObject = text.get_type_ptr();
            match class == &raw const ffi::PyUnicode_Type {
                true => Ok(text.downcast().map_err(PyErr::from)?),
                false => Err(Not::Simple),
            }
        };
        let (module, name) = (as_text("__module__")?, as_text("__qualname__")?);
        let found = modules(self.py)?.get_item(module).ok_or(Not::Simple)?;
        let found: &PyModule = found.downcast().map_err(|_| Not::Simple)?;
        match found.dict().get_item(name) {
            Some(found) if found.as_ptr() == function.as_ptr() => {
                self.bytes.push(b'g');
                self.measured(module.to_str().map_err(|_| Not::Simple)?.as_bytes());
                self.measured(name.to_str().map_err(|_| Not::Simple)?.as_bytes());
                Ok(())
            }
            _ => Err(Not::Simple),
        }
    }

    fn array(&mut self, small: &Small<'_>) -> Result<(), Not> {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(small.fortran, FORTRAN) | flag(small.writeable, WRITEABLE);
        let dimensions = small.shape.len() as u8;
        self.bytes
            .extend_from_slice(&[b'a', small.number, flags, dimensions]);
        if self.bytes.len() > FULL {
            return Err(Not::Simple);
        }
        for length in small.shape {
            self.bytes
                .extend_from_slice(&(*length as i64).to_le_bytes());
        }
        small.copy_to(&mut self.bytes);
        Ok(())
    }
}

/// Copies bytes into a new block.
fn in_block(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<Block>> {
    watch_end(py)?;
    let arena = find_default(py)?;
    let block = work(py, || arena.allocate_owned(bytes.len() as u64))?;
    // SAFETY: the block is new, nobody else's, and has room for so many.
    unsafe { gil::copy(py, bytes.as_ptr(), block.bytes().as_ptr(), bytes.len()) };
    Py::new(py, Block::new(block))
}

/// The class of functions that are written in Python.
static FUNCTIONS: GILOnceCell<PyObject> = GILOnceCell::new();

fn function_class(py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
    let class = FUNCTIONS.get(py).map(|class| class.as_ptr());
    class.ok_or_else(|| PyRuntimeError::new_err("the extension module was not initialized"))
}

/// The modules that were imported, by their names.
fn modules(py: Python<'_>) -> PyResult<&PyDict> {
    // SAFETY: the interpreter is held.
    let modules = unsafe { ffi::PyImport_GetModuleDict() };
    // SAFETY: a borrowed reference to what lives as long as the interpreter.
    let modules: &PyAny = unsafe { py.from_borrowed_ptr(modules) };
    Ok(modules.downcast()?)
}

/// Make again what was written by ``terse``, or by a pickler.
///
/// Parameters
/// ----------
/// stream : bytes or numpy.ndarray
///     An array of bytes, one behind the other.
///
/// Returns
/// -------
/// object
///
/// Raises
/// ------
/// ValueError
///     The stream is damaged.
/// Exception
///     What ``pickle.loads`` raises, and the import of modules in which functions are.
#[pyfunction]
#[pyo3(text_signature = "(stream)")]
fn loads(py: Python<'_>, stream: &PyAny) -> PyResult<PyObject> {
    let bytes = match stream.downcast::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes(),
        Err(_) => numpy::bytes_of(py, stream)?,
    };
    if bytes.first() == Some(&MARK) {
        let mut reader = Reader {
            py,
            rest: &bytes[1..],
        };
        return reader.thing(0);
    }
    static LOADS: GILOnceCell<PyObject> = GILOnceCell::new();
    let loads = match LOADS.get(py) {
        Some(loads) => loads,
        None => {
            let found = py.import("pickle")?.getattr("loads")?.into();
            LOADS.get_or_init(py, || found)
        }
    };
    loads.call1(py, (stream,))
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
}

impl<'a> Reader<'a, '_> {
    fn thing(&mut self, depth: usize) -> PyResult<PyObject> {
        if depth > DEEP {
            return Err(damaged());
        }
        let py = self.py;
        Ok(match self.byte()? {
            b'N' => py.None(),
            b'T' => true.into_py(py),
            b'F' => false.into_py(py),
            b'i' => i64::from_le_bytes(self.array()?).into_py(py),
            b'f' => f64::from_le_bytes(self.array()?).into_py(py),
            b's' => text_of(py, self.text()?)?,
            b'b' => {
                let bytes = self.measured()?;
                let copied = PyBytes::new_with(py, bytes.len(), |to| {
                    to.copy_from_slice(bytes);
                    Ok(())
                });
                copied?.into()
            }
            b't' => PyTuple::new(py, self.things(1, depth)?).into(),
            b'l' => PyList::new(py, self.things(1, depth)?).into(),
            b'd' => {
                let dict = PyDict::new(py);
                let things = self.things(2, depth)?;
                for pair in things.chunks_exact(2) {
                    dict.set_item(&pair[0], &pair[1])?;
                }
                dict.into()
            }
            b'g' => {
                let (module, name) = (self.text()?, self.text()?);
                self.function(module, name)?
            }
            b'a' => self.small()?,
            b'r' => self.array_in_block()?,
            b'B' => self.bytes_in_block()?.into(),
            _ => return Err(damaged()),
        })
    }

    fn things(&mut self, each: usize, depth: usize) -> PyResult<Vec<PyObject>> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > MOST {
            return Err(damaged());
        }
        (0..each * count).map(|_| self.thing(depth + 1)).collect()
    }

    fn function(&self, module: &str, name: &str) -> PyResult<PyObject> {
        // (Another thread may be importing it: this waits.)
        Ok(self.py.import(module)?.getattr(name)?.into())
    }

    fn small(&mut self) -> PyResult<PyObject> {
        let [number, flags, dimensions] = self.array()?;
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(i64::from_le_bytes(self.array()?) as isize);
        }
        let (fortran, writeable) = (flags & FORTRAN != 0, flags & WRITEABLE != 0);
        let (made, bytes) = numpy::made_of(self.py, number, &shape, fortran, writeable, self.rest)?
            .ok_or_else(damaged)?;
        self.take(bytes)?;
        Ok(made)
    }

    fn array_in_block(&mut self) -> PyResult<PyObject> {
        let py = self.py;
        let [number, flags, dimensions] = self.array()?;
        let (mut shape, mut strides) = (Vec::new(), Vec::new());
        for _ in 0..dimensions {
            shape.push(i64::from_le_bytes(self.array()?) as isize);
            strides.push(i64::from_le_bytes(self.array()?) as isize);
        }
        let offset = u64::from_le_bytes(self.array()?) as usize;
        let handle = self.handle()?;
        let is_private = flags & PRIVATE != 0;
        let block = match is_private {
            true => received(py, handle, process::Arena::take)?,
            false => received(py, handle, process::Arena::receive)?,
        };
        let copies = is_private && !process::has_room();
        if is_private && !copies {
            // Also against children that are forked.
            block.set_private(py, true)?;
        }
        let placed = Placed {
            number,
            shape,
            strides,
            offset,
            writeable: flags & WRITEABLE != 0,
            is_own: flags & OWN_CLASS != 0,
        };
        let array = numpy::array_like(py, Py::new(py, block)?, &placed)?;
        if !copies {
            return Ok(array);
        }
        let copy = array.call_method1(py, "copy", ("K",))?;
        let flags = copy.as_ref(py).getattr("flags")?;
        flags.setattr("writeable", placed.writeable)?;
        Ok(copy)
    }

    fn bytes_in_block(&mut self) -> PyResult<&PyBytes> {
        let py = self.py;
        let length = u64::from_le_bytes(self.array()?);
        let block = received(py, self.handle()?, process::Arena::take)?;
        if length > block.inner().size() {
            return Err(damaged());
        }
        // (pyo3's way would write to all of it first.)
        // SAFETY: so many bytes, not set; a failure is an exception.
        let made = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), length as isize) };
        // SAFETY: a new reference, or null with an exception.
        let bytes: &PyBytes = unsafe { py.from_owned_ptr_or_err(made)? };
        // SAFETY: a bytes object.
        let to: *mut u8 = unsafe { ffi::PyBytes_AsString(made).cast() };
        // SAFETY: the block is as long; memory of an object that nobody else has, just as long.
        unsafe { gil::copy(py, block.first_byte(), to, length as usize) };
        Ok(bytes)
    }

    fn handle(&mut self) -> PyResult<Handle> {
        let length = self.byte()? as usize;
        let area = self.take(LONGEST_HANDLE)?;
        let handle = area.get(..length).ok_or_else(damaged)?;
        Handle::decode(handle).map_err(|error| exception(self.py, error))
    }

    fn byte(&mut self) -> PyResult<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const COUNT: usize>(&mut self) -> PyResult<[u8; COUNT]> {
        self.take(COUNT)?.try_into().map_err(|_| damaged())
    }

    fn text(&mut self) -> PyResult<&'a str> {
        std::str::from_utf8(self.measured()?).map_err(|_| damaged())
    }

    fn measured(&mut self) -> PyResult<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> PyResult<&'a [u8]> {
        let taken = self.rest.get(..length).ok_or_else(damaged)?;
        self.rest = &self.rest[length..];
        Ok(taken)
    }
}

/// A new string.
fn text_of(py: Python<'_>, text: &str) -> PyResult<PyObject> {
    let (first, length) = (text.as_ptr(), text.len() as ffi::Py_ssize_t);
    // SAFETY: so many bytes of UTF-8.
    let made = unsafe { ffi::PyUnicode_FromStringAndSize(first.cast(), length) };
    // SAFETY: a new reference, or null with an exception.
    unsafe { PyObject::from_owned_ptr_or_err(py, made) }
}

fn damaged() -> PyErr {
    PyValueError::new_err(
        "the stream is damaged: it was not written by this version of shared_numpy",
    )
}
