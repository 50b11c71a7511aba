package multiplex

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func none(string) bool { return false }

func TestParseQuery(t *testing.T) {
	got, err := ParseQuery("prices=/events/prices&chat=%2Froom%3Fid%3D7%26all&&x=%2F&lastEventId=1", MaxStreams,
		func(name string) bool { return name == "lastEventId" })
	want := []Stream{{"prices", "/events/prices"}, {"chat", "/room?id=7&all"}, {"x", "/"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q and %v, want %q", got, err, want)
	}
}

func TestParseQueryRefuses(t *testing.T) {
	many := func(n int, alias string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("%s%d=/%d", alias, i, i))
		}
		return strings.Join(all, "&")
	}
	for query, want := range map[string]string{
		"":                                    "names no stream",
		"&&":                                  "names no stream",
		"=/a":                                 "it is empty",
		"a":                                   "its path is missing",
		"a=":                                  "its path is missing",
		"a=/x&a=/y":                           "given twice",
		"a=/x&%61=/y":                         "given twice",
		"a%20b=/x":                            "letters, digits",
		"a/b=/x":                              "letters, digits",
		"a:b=/x":                              "letters, digits",
		"a,b=/x":                              "letters, digits",
		"-a=/x":                               "letters, digits",
		"%0Aa=/x":                             "letters, digits",
		"%C3%A4=/x":                           "letters, digits",
		"%zz=/x":                              "invalid URL escape",
		"a=/%zz":                              "invalid URL escape",
		"a=/%25zz":                            "invalid URL escape",
		strings.Repeat("a", 33) + "=/x":       "more than 32 characters",
		many(33, "s"):                         "more than 32 streams",
		many(32, "an-alias-of-some-length-"):  "use shorter names",
		"a=x":                                 "no path of this site",
		"a=events":                            "no path of this site",
		"a=http%3A%2F%2Fexample.com%2F":       "no path of this site",
		"a=%2F%2Fexample.com%2F":              "no path of this site",
		"a=//example.com/":                    "no path of this site",
		"a=*":                                 "no path of this site",
		"a=/%5Cexample.com":                   "backslash",
		"a=%5C%5Cexample.com":                 "no path of this site",
		"a=/x%23y":                            "fragment",
		"a=/x%20y":                            "percent-encoded",
		"a=/x%0D%0AHost:%20y":                 "percent-encoded",
		"a=/%C3%A4":                           "percent-encoded",
		"a=/x%00":                             "percent-encoded",
		"a=/a/../b":                           "dot segment",
		"a=/a/./b":                            "dot segment",
		"a=/..":                               "dot segment",
		"a=/a/%252e%252E/b":                   "dot segment",
		"a=/a/.%252e":                         "dot segment",
		"a=/a%252Fb":                          "encoded slash",
		"a=/a%255cb":                          "encoded slash",
		"a=/" + strings.Repeat("x", MaxQuery): "bytes",
	} {
		if got, err := ParseQuery(query, MaxStreams, none); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %q and %v, want an error that says %q", query, got, err, want)
		}
	}
	if _, err := ParseQuery(many(3, "s"), 2, none); err == nil {
		t.Error("it takes more streams than the configuration allows")
	}
	if _, err := ParseQuery(many(MaxStreams, "s"), MaxStreams, none); err != nil {
		t.Errorf("%d streams: %v", MaxStreams, err)
	}
	if got, err := ParseQuery("a=/x%3Fy=/../z", MaxStreams, none); err != nil || got[0].Target != "/x?y=/../z" {
		t.Errorf("a query is not a path: got %q and %v", got, err)
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, query := range []string{"a=/x&b=/y%3Fz", "a=//x", "a=/%252e", "a=/a%23", "%61=/x&a=/y"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		streams, err := ParseQuery(query, MaxStreams, none)
		if err != nil {
			return
		}
		seen := make(map[string]bool)
		for _, s := range streams {
			u, err := url.ParseRequestURI(s.Target)
			if err != nil || u.Host != "" || u.Scheme != "" || u.Opaque != "" || u.User != nil || u.Fragment != "" || !strings.HasPrefix(u.Path, "/") {
				t.Errorf("%q leads to %#v: %v", s.Target, u, err)
			}
			if strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, "/../") || strings.HasSuffix(u.Path, "/..") {
				t.Errorf("%q has the path %q", s.Target, u.Path)
			}
			if seen[s.Alias] || strings.ContainsAny(s.Alias, ":,/~ \r\n") {
				t.Errorf("alias %q", s.Alias)
			}
			seen[s.Alias] = true
		}
	})
}

func TestMarks(t *testing.T) {
	for id, want := range map[string]Mark{
		"17":       "17",
		"a b":      "a%20b",
		"a,b:c%d":  "a%2Cb%3Ac%25d",
		"~x":       "%7Ex",
		"ä":        "%C3%A4",
		"\x00\x7f": "%00%7F",
		"a/b+c=":   "a/b+c=",
	} {
		got := whole(id)
		back, err := got.ID()
		if got != want || back != id || err != nil {
			t.Errorf("%q: got %q, and %q back with %v; want %q", id, got, back, err, want)
		}
	}
	id := strings.Repeat("long", 40)
	m := digest(id)
	if !m.IsDigest() || len(m) != digestLength || !m.StandsFor(id) || m.StandsFor(id+"x") {
		t.Errorf("the digest of %q is %q", id, m)
	}
	if _, err := m.ID(); err == nil {
		t.Error("a digest has an id")
	}
}

func TestParseIDRefuses(t *testing.T) {
	for _, id := range []string{
		"17", "a", "a:", ":1", "a:1,", "a:1,a:2", "a:1;b:2", "a b:1", "a:%", "a:%2", "a:%zz", "a:%0a", "a:%0A", "a:%00",
		"a:b:c", "a:~", "a:~short", "a:~" + strings.Repeat("A", 12), "a:ä", "a:~!!!!!!!!!!!",
	} {
		if got, err := ParseID(id); err == nil {
			t.Errorf("%q: got %v", id, got)
		}
	}
	if _, err := ParseID("a:" + strings.Repeat("1", MaxID)); !errors.Is(err, ErrIDTooLong) {
		t.Errorf("an id over the bound: %v", err)
	}
	if got, err := ParseID(""); err != nil || len(got) != 0 {
		t.Errorf("no id: %v, %v", got, err)
	}
}

func FuzzParseID(f *testing.F) {
	for _, id := range []string{"a:17,b:x%20y", "a:~AAAAAAAAAAA", "a:1,a:2", "17", "%"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, text string) {
		marks, err := ParseID(text)
		if err != nil {
			return
		}
		var streams []Stream
		for alias, mark := range marks {
			streams = append(streams, Stream{Alias: alias})
			if mark.IsDigest() {
				continue
			}
			id, err := mark.ID()
			if again, _ := whole(id).ID(); err != nil || again != id {
				t.Errorf("%q is %q, %v, and then %q", mark, id, err, again)
			}
		}
		p := newPositions(streams, marks)
		if got, err := ParseID(string(p.append(nil))); err != nil || len(got) != len(marks) || !p.fits() {
			t.Errorf("%q becomes %q: %v", text, p.append(nil), err)
		}
	})
}

// The id stays within its bound whatever the ids of the streams are, as long as logs can
// resolve digests.
func TestPositionsStayWithinTheBound(t *testing.T) {
	var streams []Stream
	for i := range MaxStreams {
		streams = append(streams, Stream{Alias: fmt.Sprintf("stream-number-%d", i)})
	}
	p := newPositions(streams, nil)
	for i := range streams {
		if !p.set(i, fmt.Sprintf("%0100d", i), true) {
			t.Fatalf("with %d streams, there is no room", i+1)
		}
		if got := len(p.append(nil)); got != p.length-1 || got > MaxID {
			t.Fatalf("the id has %d bytes, and is thought to have %d", got, p.length-1)
		}
	}
	marks, err := ParseID(string(p.append(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range streams {
		if m := marks[s.Alias]; !m.StandsFor(fmt.Sprintf("%0100d", i)) {
			t.Errorf("%s is at %q", s.Alias, m)
		}
	}
	if p.set(0, strings.Repeat("x", MaxID), false) {
		t.Error("there is room for an id that no log resolves")
	}
}
