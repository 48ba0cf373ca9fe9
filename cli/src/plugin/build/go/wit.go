// Package wit has the types of WIT that Go has none for.
package wit

// Unit is a value that says nothing, such as that of a result without one.
type Unit struct{}

type Tuple2[A, B any] struct {
	F0 A
	F1 B
}

type Tuple3[A, B, C any] struct {
	F0 A
	F1 B
	F2 C
}

type Tuple4[A, B, C, D any] struct {
	F0 A
	F1 B
	F2 C
	F3 D
}

const (
	OptionNone uint8 = iota
	OptionSome
)

// Option is None where nothing was assigned to it.
type Option[T any] struct {
	tag   uint8
	value T
}

func Some[T any](value T) Option[T] { return Option[T]{OptionSome, value} }
func None[T any]() Option[T]        { return Option[T]{} }

func (o Option[T]) Tag() uint8   { return o.tag }
func (o Option[T]) IsSome() bool { return o.tag == OptionSome }

func (o Option[T]) Some() T {
	if o.tag != OptionSome {
		panic("there is no value")
	}
	return o.value
}

// SomeOr is the value, or the other one where there is none.
func (o Option[T]) SomeOr(other T) T {
	if o.tag == OptionSome {
		return o.value
	}
	return other
}

const (
	ResultOk uint8 = iota
	ResultErr
)

type Result[T, E any] struct {
	tag   uint8
	value T
	err   E
}

func Ok[T, E any](value T) Result[T, E] { return Result[T, E]{value: value} }
func Err[T, E any](err E) Result[T, E]  { return Result[T, E]{tag: ResultErr, err: err} }

func (r Result[T, E]) Tag() uint8  { return r.tag }
func (r Result[T, E]) IsErr() bool { return r.tag == ResultErr }

func (r Result[T, E]) Ok() T {
	if r.tag != ResultOk {
		panic("this is an error")
	}
	return r.value
}

func (r Result[T, E]) Err() E {
	if r.tag != ResultErr {
		panic("this is no error")
	}
	return r.err
}
