// Package runtime is what the generated bindings need of memory.
package runtime

import (
	"runtime"
	"unsafe"
)

// What the host writes for the call that follows. It stays until the call has taken it over.
var arguments runtime.Pinner

// Allocate gives memory that neither moves nor goes until the pinner lets go of it.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	// Words of eight bytes: as aligned as anything can ask for.
	memory := unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	pinner.Pin(memory)
	return memory
}

// Unpin lets go of the arguments: from here on only what refers to them keeps them.
func Unpin() {
	arguments.Unpin()
}

//go:wasmexport cabi_realloc
func reallocate(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	memory := Allocate(&arguments, size, align)
	if oldSize > 0 && size > 0 {
		copy(unsafe.Slice((*byte)(memory), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return memory
}
