// Package arguments reads what follows an option in a Caddyfile.
package arguments

import (
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Arguments are those of one option. Their methods go from one to the next and
// return what it says, until there is an error, which is the only one that Err
// keeps. Zero and negative values are errors: in a configuration they stand for a
// default or for "off", and whoever writes them means something else.
type Arguments struct {
	// Err is the first error.
	Err error

	d      *caddyfile.Dispenser
	option string
}

// New returns the arguments of the option that d is at.
func New(d *caddyfile.Dispenser, option string) *Arguments {
	return &Arguments{d: d, option: option}
}

// Fail makes an error that of the option, unless there was one before.
func (args *Arguments) Fail(format string, values ...any) {
	if args.Err == nil {
		args.Err = fmt.Errorf("parsing %s: %w", args.option, fmt.Errorf(format, values...))
	}
}

// End fails if anything is left, a block included.
func (args *Arguments) End() {
	if args.d.NextLine() {
		args.d.Prev()
	} else if args.Err == nil {
		args.d.Next()
		args.Fail("unexpected %q", args.d.Val())
	}
}

// More reports whether there is another argument.
func (args *Arguments) More() bool {
	return args.Err == nil && args.d.CountRemainingArgs() > 0
}

// Next consumes the next argument if it is word, and reports whether it was.
func (args *Arguments) Next(word string) bool {
	if !args.More() {
		return false
	}
	args.d.NextArg()
	if args.d.Val() == word {
		return true
	}
	args.d.Prev()
	return false
}

// Text is the next argument, which must not be empty.
func (args *Arguments) Text() string {
	if args.More() && args.d.NextArg() && args.d.Val() != "" {
		return args.d.Val()
	}
	args.Fail("missing or empty argument")
	return ""
}

// Texts are all arguments that are left, at least one.
func (args *Arguments) Texts() []string {
	if !args.More() {
		args.Fail("missing argument")
	}
	return args.d.RemainingArgs()
}

// Number is a positive integer.
func (args *Arguments) Number() int {
	return positive(args, "number", strconv.Atoi)
}

// Duration is a positive duration, in Go's notation or in days.
func (args *Arguments) Duration() caddy.Duration {
	return caddy.Duration(positive(args, "duration, such as 10s", caddy.ParseDuration))
}

// Limit is a duration, or 0 for "off".
func (args *Arguments) Limit() caddy.Duration {
	if args.Next("off") {
		return 0
	}
	return args.Duration()
}

// Size is a positive number of bytes, with or without a unit.
func (args *Arguments) Size() int64 {
	return positive(args, "size, such as 4MiB", func(text string) (int64, error) {
		size, err := humanize.ParseBytes(text)
		return int64(size), err // what is too large becomes negative
	})
}

// positive returns the next argument as parse understands it.
func positive[T ~int | ~int64](args *Arguments, kind string, parse func(string) (T, error)) T {
	text := args.Text()
	value, err := parse(text)
	if err != nil || value <= 0 {
		args.Fail("%q is not a positive %s", text, kind)
	}
	return value
}
