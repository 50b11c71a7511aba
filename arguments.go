package ssefanout

import (
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// arguments are those of one option. Their methods go from one to the next and
// return what it says, until there is an error, which is the only one that err
// keeps. Zero and negative values are errors: in Options they stand for a
// default or for "off", and whoever writes them means something else.
type arguments struct {
	d      *caddyfile.Dispenser
	option string
	err    error
}

func (args *arguments) fail(format string, values ...any) {
	if args.err == nil {
		args.err = fmt.Errorf("parsing %s: %w", args.option, fmt.Errorf(format, values...))
	}
}

// end fails if anything is left, a block included.
func (args *arguments) end() {
	if args.d.NextLine() {
		args.d.Prev()
	} else if args.err == nil {
		args.d.Next()
		args.fail("unexpected %q", args.d.Val())
	}
}

// more reports whether there is another argument.
func (args *arguments) more() bool {
	return args.err == nil && args.d.CountRemainingArgs() > 0
}

// next consumes the next argument if it is word, and reports whether it was.
func (args *arguments) next(word string) bool {
	if !args.more() {
		return false
	}
	args.d.NextArg()
	if args.d.Val() == word {
		return true
	}
	args.d.Prev()
	return false
}

func (args *arguments) text() string {
	if args.more() && args.d.NextArg() && args.d.Val() != "" {
		return args.d.Val()
	}
	args.fail("missing or empty argument")
	return ""
}

func (args *arguments) texts() []string {
	if !args.more() {
		args.fail("missing argument")
	}
	return args.d.RemainingArgs()
}

func (args *arguments) number() int {
	return positive(args, "number", strconv.Atoi)
}

func (args *arguments) duration() caddy.Duration {
	return caddy.Duration(positive(args, "duration, such as 10s", caddy.ParseDuration))
}

// limit is a duration, or 0 for "off".
func (args *arguments) limit() caddy.Duration {
	if args.next("off") {
		return 0
	}
	return args.duration()
}

func (args *arguments) size() int64 {
	return positive(args, "size, such as 4MiB", func(text string) (int64, error) {
		size, err := humanize.ParseBytes(text)
		return int64(size), err // what is too large becomes negative
	})
}

// positive returns the next argument as parse understands it.
func positive[T ~int | ~int64](args *arguments, kind string, parse func(string) (T, error)) T {
	text := args.text()
	value, err := parse(text)
	if err != nil || value <= 0 {
		args.fail("%q is not a positive %s", text, kind)
	}
	return value
}
