package survey

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
)

// unequalMatcher returns the name of a matcher in a set that may match for one
// client and not for another with the same key, or "". A set with a matcher that
// matches for nobody who shares is equal for all.
func (s *surveyor) unequalMatcher(set []any) string {
	unequal := ""
	for _, m := range set {
		if s.matchesNobody(m) {
			return ""
		}
		if unequal == "" && !s.equal(m) {
			unequal = strings.TrimPrefix(moduleID(m), "http.matchers.")
		}
	}
	return unequal
}

// equal reports whether a matcher sees the same in all requests that share.
func (s *surveyor) equal(m any) bool {
	switch m := m.(type) {
	case *caddyhttp.MatchNot:
		return !slices.ContainsFunc(m.MatcherSets, func(set caddyhttp.MatcherSet) bool { return s.unequalMatcher(set) != "" })
	case caddyhttp.MatchNot:
		return s.equal(&m)
	case *caddyhttp.MatchHeader:
		return s.equalHeaders(*m)
	case caddyhttp.MatchHeader:
		return s.equalHeaders(m)
	}
	switch moduleID(m) {
	case "http.matchers.path_regexp":
		return true
	case "http.matchers.host", "http.matchers.path", "http.matchers.method", "http.matchers.query",
		"http.matchers.url_pattern", "http.matchers.file":
		return s.equalPlaceholders(m)
	case "http.matchers.vars":
		return s.equalVariables(m) && s.equalPlaceholders(m)
	case "http.matchers.vars_regexp":
		return s.equalVariables(m) // its patterns have braces of their own
	case "http.matchers.protocol":
		return slices.Contains([]string{`"http"`, `"https"`}, asJSON(m))
	}
	return false
}

// equalVariables reports whether the variables that a matcher looks at are equal for
// all that share.
func (s *surveyor) equalVariables(m any) bool {
	var byName map[string]any
	if err := json.Unmarshal([]byte(asJSON(m)), &byName); err != nil {
		return false
	}
	for name := range byName {
		if found := placeholder.FindStringSubmatch(name); found != nil {
			if !s.equalPlaceholder(found[1]) {
				return false
			}
		} else if OwnVariable(name) {
			return false
		}
	}
	return true
}

// equalHeaders reports whether all that share have the same of these headers: vary
// names them, the site sets them, or no client that shares can carry them.
func (s *surveyor) equalHeaders(wanted caddyhttp.MatchHeader) bool {
	for name := range wanted {
		// In front, a header that the site changes may still be as the client has sent it.
		varies, changed := slices.Contains(s.vary.Headers, fields.Canonical(name)), slices.Contains(s.headers, fields.Canonical(name))
		compared := varies && !changed || changed && !s.front
		if fields.Canonical(name) != "Host" && !compared && !s.absent(name) {
			return false
		}
	}
	return s.equalPlaceholders(wanted)
}

// matchesNobody reports whether a matcher needs a header that no client that shares
// can carry, as those for WebSocket do.
func (s *surveyor) matchesNobody(m any) bool {
	switch m := m.(type) {
	case *caddyhttp.MatchHeader:
		return s.matchesNobody(*m)
	case caddyhttp.MatchHeader:
		for name, values := range m {
			if values != nil && s.absent(name) || needsWebSocket(name, values) {
				return true
			}
		}
	case *caddyhttp.MatchHeaderRE:
		for name := range *m {
			if s.absent(name) {
				return true
			}
		}
	}
	return false
}

// needsWebSocket reports whether a header names a WebSocket, as those do that pass.
func needsWebSocket(name string, values []string) bool {
	other := func(value string) bool { return !strings.EqualFold(value, "websocket") }
	return fields.Canonical(name) == "Upgrade" && len(values) > 0 && !slices.ContainsFunc(values, other)
}

// absent reports whether a request with a header is never shared.
func (s *surveyor) absent(name string) bool {
	name = fields.Canonical(name)
	return !s.vary.Strip && name != "Host" && !fields.Harmless(name) &&
		!slices.Contains(s.vary.Headers, name) && !slices.Contains(s.headers, name)
}

var placeholder = regexp.MustCompile(`\{([^{}\s"]+)\}`)

// equalPlaceholders reports whether the placeholders that a matcher has are equal
// for all that share. A vars matcher names variables, too, and placeholders as
// their names.
func (s *surveyor) equalPlaceholders(m any) bool {
	for _, found := range placeholder.FindAllStringSubmatch(asJSON(m), -1) {
		if !s.equalPlaceholder(found[1]) {
			return false
		}
	}
	return true
}

func (s *surveyor) equalPlaceholder(name string) bool {
	if slices.Contains(s.maps, name) || slices.Contains(s.vary.Placeholders, name) {
		return true
	}
	if variable, ok := strings.CutPrefix(name, "http.vars."); ok {
		return !OwnVariable(variable)
	}
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return slices.ContainsFunc([]string{"env.", "system.", "http.request.uri", "http.request.orig_uri",
		"http.request.host", "http.request.port", "http.request.scheme", "http.request.method", "http.matchers.file."}, begins)
}

func moduleID(v any) string {
	if m, ok := v.(caddy.Module); ok {
		return string(m.CaddyModule().ID)
	}
	return fmt.Sprintf("%T", v)
}

func asJSON(v any) string {
	encoded, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(encoded)
}
