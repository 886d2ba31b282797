//! Memory at a fixed address, which structures shared with the kernel may point into for as long as it lives.

use std::ptr::NonNull;

/// A slice on the heap that is only ever reached through its raw pointer, so that moving the owner, or borrowing one
/// element, leaves the pointers into it valid.
pub(super) struct Arena<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: an arena owns its memory as a box does and has no interior sharing.
unsafe impl<T: Send> Send for Arena<T> {}

impl<T> Arena<T> {
    pub(super) fn new(values: Box<[T]>) -> Self {
        let len = values.len();
        Self { start: NonNull::from(Box::leak(values)).cast(), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where element `index` lives.
    ///
    /// # Panics
    /// If there is no such element.
    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: the offset is inside the allocation, just asserted.
        unsafe { self.start.as_ptr().add(index) }
    }
}

impl<T> Drop for Arena<T> {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
        // SAFETY: start and length are those of the box that `new` leaked, and nobody else frees it.
        drop(unsafe { Box::from_raw(slice) });
    }
}
