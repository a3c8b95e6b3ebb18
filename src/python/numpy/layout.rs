//! How an array's items lie: dtype, shape and strides. Needs no block.

use super::capi::{numpy, Numpy, MOST_DIMENSIONS};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyLong, PyString, PyTuple};

/// What an array's items are.
pub struct Items {
    pub(super) dtype: PyObject,
    pub(super) size: usize,
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

/// So many dimensions need no memory of their own.
pub(super) const FEW: usize = 6;

/// A number for each dimension: how many items, or how many bytes to the next.
pub struct Shape {
    few: [isize; FEW],
    many: Vec<isize>,
    pub(super) dimensions: usize,
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

    pub fn empty() -> Self {
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
            let many = numbers.iter().map_err(|error| {
                match error.is_instance::<PyTypeError>(numbers.py()) {
                    true => PyTypeError::new_err(format!(
                        "{what} must be an integer or a sequence of integers, not {numbers:?}"
                    )),
                    false => error,
                }
            })?;
            for number in many {
                found.push(what, Self::number(what, number?)?)?;
            }
        }
        Ok(found)
    }

    /// Of numbers as numpy has them.
    pub(super) fn of(numbers: &[isize]) -> PyResult<Self> {
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
    pub(super) fn push(&mut self, what: &str, number: isize) -> PyResult<()> {
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
    pub(super) fn as_slice(&self) -> &[isize] {
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
    pub(super) items: Items,
    pub(super) shape: Shape,
    /// None: one behind the other, in the order that is said.
    pub(super) strides: Option<Shape>,
    pub(super) fortran: bool,
    pub(super) offset: usize,
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
