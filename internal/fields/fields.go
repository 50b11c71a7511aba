// Package fields knows the fields of HTTP headers: which of a request say nothing about
// its client, by which servers choose among variants, and which of an answer are for one
// client alone. It knows nothing of topics.
package fields

import (
	"iter"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// Values returns the values of a header, given by its canonical name, also
// where a handler has set it under another spelling.
func Values(header http.Header, canonical string) []string {
	values := header[canonical]
	for name, others := range header {
		if name != canonical && Canonical(name) == canonical {
			values = slices.Concat(values, others)
		}
	}
	return values
}

// Items returns an iterator over the items of a header that is a list
// (RFC 9110, section 5.6.1).
func Items(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, value := range values {
			for item := range strings.SplitSeq(value, ",") {
				if item = strings.TrimSpace(item); item != "" && !yield(item) {
					return
				}
			}
		}
	}
}

// HasToken reports whether one of the lists in values has a token, in any case.
func HasToken(values []string, token string) bool {
	for item := range Items(values) {
		if strings.EqualFold(item, token) {
			return true
		}
	}
	return false
}

// Canonical returns a name in the form that the maps of net/http have.
func Canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

func set(names string) map[string]bool {
	all := make(map[string]bool)
	for name := range strings.FieldsSeq(names) {
		all[Canonical(name)] = true
	}
	return all
}
