//! Writing a stream.

use super::super::block_trace::note_object;
use super::super::default_arena::find_default;
use super::super::gil;
use super::super::handles::{cancel_all, encoded, give_up};
use super::super::new_arrays::copy;
use super::super::numpy::{self, Small};
use super::super::objects::Block;
use super::super::operation::work;
use super::super::process_tree::watch_end;
use super::stream::{DEEP, FORTRAN, MARK, MOST, OWN_CLASS, PRIVATE, WRITEABLE};
use crate::arena::handle::LONGEST_HANDLE;
use pyo3::exceptions::PyRuntimeError;
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
    module.add_function(wrap_pyfunction!(terse, module)?)
}

/// A pickler is as fast with longer text, or with more of all than that, in bytes.
const LONG: usize = 1 << 12;
const FULL: usize = 1 << 18;
/// Longer text to which other objects refer might come again.
const SHORT: usize = 64;

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
    if bytes.capacity() <= LONGEST_BUFFER {
        BUFFER.with(|buffer| buffer.replace(bytes));
    }
    stream
}

/// How long a buffer a thread keeps.
const LONGEST_BUFFER: usize = 1 << 16;

struct Writer<'py> {
    py: Python<'py>,
    below: usize,
    bytes: Vec<u8>,
    count: usize,
    /// Objects to which others refer, too, so that they might come again.
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

    /// Notes a thing to which other objects refer, too; whether it was noted before.
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
        // To find a function, keys are compared, which may run any code. The container may lose
        // this object then.
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
            // SAFETY: a dict, and three variables for the position, a key and a value.
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
        let shared = numpy::block_view(self.py, array)?;
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
        let placed = numpy::block_view(py, sent)?;
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
    unsafe { gil::copy_in(py, bytes.as_ptr(), &block, 0, bytes.len()) };
    let block = Block::new(block);
    note_object(py, &block)?;
    Py::new(py, block)
}

/// The class of functions that are written in Python.
static FUNCTIONS: GILOnceCell<PyObject> = GILOnceCell::new();

fn function_class(py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
    let class = FUNCTIONS.get(py).map(|class| class.as_ptr());
    class.ok_or_else(|| PyRuntimeError::new_err("the extension module was not initialized"))
}

/// The modules that were imported, by their names.
fn modules(py: Python<'_>) -> PyResult<&PyDict> {
    // SAFETY: the GIL is held.
    let modules = unsafe { ffi::PyImport_GetModuleDict() };
    // SAFETY: a borrowed reference to what lives as long as the interpreter.
    let modules: &PyAny = unsafe { py.from_borrowed_ptr(modules) };
    Ok(modules.downcast()?)
}
