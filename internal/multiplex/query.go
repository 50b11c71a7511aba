// Package multiplex brings several event streams of a site to a client over one response.
//
// A Conn is that response. Its goroutine reads the logs of all streams that are shared, and
// takes what comes of those that are the client's alone. The package knows how streams are
// named (query.go), how their positions share one id (position.go), and how events are marked
// with the stream that they are of (block.go). What a request for a stream passes in the
// site, it does not know: Options.Ask does that.
package multiplex

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	// MaxStreams is how many streams a connection has at most.
	MaxStreams = 32

	// MaxAlias is the length of the longest alias, in bytes.
	MaxAlias = 32

	// MaxQuery is the length of the longest query, in bytes. Servers bound a request line
	// at 8 KiB and more.
	MaxQuery = 16 << 10
)

// A Stream is one that a client asks for: Target, a path of the site with its query, as in
// a request line, under a name of the client's choice.
type Stream struct{ Alias, Target string }

// errUsage ends what is said of a query that names no stream.
var errUsage = errors.New("name each stream by a parameter, as in ?prices=/events/prices&chat=/events/room/7")

// ParseQuery returns the streams that a query names, in order, at most so many. Parameters
// for which skip reports true name none.
func ParseQuery(query string, most int, skip func(name string) bool) ([]Stream, error) {
	if len(query) > MaxQuery {
		return nil, fmt.Errorf("reading the query: it has %d bytes, of which %d are allowed: ask for fewer streams", len(query), MaxQuery)
	}
	var streams []Stream
	known := make(map[string]bool)
	reserved := 0
	for param := range strings.SplitSeq(query, "&") {
		if param == "" {
			continue
		}
		name, value, _ := strings.Cut(param, "=")
		alias, err := url.QueryUnescape(name)
		if err != nil {
			return nil, fmt.Errorf("reading the name of a stream: %w", err)
		}
		if skip(alias) {
			continue
		}
		if err := checkAlias(alias); err != nil {
			return nil, err
		}
		if known[alias] {
			return nil, fmt.Errorf("reading stream %s: the name is given twice: name each stream once", alias)
		}
		known[alias] = true
		target, err := url.QueryUnescape(value)
		if err == nil {
			err = checkTarget(target)
		}
		if err != nil {
			return nil, fmt.Errorf("reading stream %s: %w", alias, err)
		}
		if len(streams) == most {
			return nil, fmt.Errorf("reading the query: it names more than %d streams: use another connection for the rest", most)
		}
		streams = append(streams, Stream{Alias: alias, Target: target})
		reserved += len(alias) + len(":,") + digestLength
	}
	switch {
	case len(streams) == 0:
		return nil, fmt.Errorf("reading the query: it names no stream: %w", errUsage)
	case reserved > MaxID:
		return nil, fmt.Errorf("reading the query: with these names, an id with the positions of all streams may have more than %d bytes: use shorter names", MaxID)
	}
	return streams, nil
}

// checkAlias reports what is wrong with a name. It becomes a part of event types and of ids.
func checkAlias(alias string) error {
	if len(alias) > MaxAlias {
		return fmt.Errorf("reading the name of a stream: it has more than %d characters", MaxAlias)
	}
	for i, c := range []byte(alias) {
		if !isAlnum(c) && (i == 0 || c != '-' && c != '_') {
			return fmt.Errorf("reading the name of stream %q: it may have letters, digits, - and _, and begins with a letter or a digit", alias)
		}
	}
	if alias == "" {
		return fmt.Errorf("reading the name of a stream: it is empty: %w", errUsage)
	}
	return nil
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// checkTarget reports what is wrong with what shall be a path of this site with its query.
// What servers and browsers read in different ways is refused, even though the site would
// judge it as it judges the client's own request.
func checkTarget(target string) error {
	path, _, _ := strings.Cut(target, "?")
	lower := strings.ToLower(path)
	switch {
	case target == "":
		return errors.New("its path is missing")
	case target[0] != '/', strings.HasPrefix(target, "//"):
		return fmt.Errorf("%q is no path of this site: it must begin with one slash, without scheme or host", target)
	case strings.Contains(target, "#"):
		return fmt.Errorf("%q has a fragment, which a server never gets: leave it out", target)
	case strings.IndexFunc(target, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0:
		return fmt.Errorf("%q has characters that must be percent-encoded, before the parameter as a whole is", target)
	case strings.Contains(path, `\`), strings.Contains(lower, "%2f"), strings.Contains(lower, "%5c"):
		return fmt.Errorf("%q has an encoded slash, or a backslash: such a stream needs a connection of its own", target)
	}
	for segment := range strings.SplitSeq(strings.ReplaceAll(lower, "%2e", "."), "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("%q has a dot segment: resolve it", target)
		}
	}
	if _, err := url.ParseRequestURI(target); err != nil {
		return fmt.Errorf("parsing its path: %w", err)
	}
	return nil
}
