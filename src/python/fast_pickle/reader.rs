//! Reading a stream.

use super::super::error::exception;
use super::super::gil;
use super::super::handles::received;
use super::super::numpy::{self, BlockView};
use super::stream::{DEEP, FORTRAN, MARK, MOST, OWN_CLASS, PRIVATE, WRITEABLE};
use crate::arena::handle::{Handle, LONGEST_HANDLE};
use crate::process;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::once_cell::GILOnceCell;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// Adds the function of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(loads, module)?)
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
        let copies = is_private && !process::can_make_private();
        if is_private && !copies {
            // Also against children that are forked.
            block.set_private(py, true)?;
        }
        let placed = BlockView {
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
