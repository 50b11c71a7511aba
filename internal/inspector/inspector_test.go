package inspector

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// It has to work without the Internet, and to tell nobody that somebody looks
// at it. And what its own policy forbids must not be in it.
func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	outside := regexp.MustCompile(`(?i)((src|href)\s*=|url\(|@import|\bfrom|import\()\s*["']?(https?:)?//`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script[^>]*>[^<]`)
	absolute := regexp.MustCompile(`(?i)\b(src|href)="/`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	used := regexp.MustCompile(`from '\./([^']+)'|(?:src|href)="([^"]+)"`)
	err := fs.WalkDir(embedded, "page", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(embedded, path)
		if err != nil {
			return err
		}
		for what, pattern := range map[string]*regexp.Regexp{
			"loads something from elsewhere":       outside,
			"makes markup of text":                 markup,
			"depends on where the page is":         absolute,
			"has what its own policy does not let": inline,
		} {
			if pattern == inline && !strings.HasSuffix(path, ".html") {
				continue
			}
			if found := pattern.Find(text); found != nil {
				t.Errorf("%s %s: %s", path, what, found)
			}
		}
		for _, match := range used.FindAllSubmatch(text, -1) {
			name := string(match[1]) + string(match[2])
			if _, err := fs.Stat(embedded, "page/"+name); err != nil {
				t.Errorf("%s needs %s, which is not there", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every element that a script looks for by its id is in the page.
func TestThePageHasWhatItsScriptsLookFor(t *testing.T) {
	page, err := fs.ReadFile(embedded, "page/index.html")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := fs.Glob(embedded, "page/*.js")
	if err != nil {
		t.Fatal(err)
	}
	looked := regexp.MustCompile(`\$\('([\w-]+)'\)|[^.]\bset(?:Pairs)?\('([\w-]+)'`)
	for _, name := range scripts {
		script, err := fs.ReadFile(embedded, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range looked.FindAllSubmatch(script, -1) {
			id := string(match[1]) + string(match[2])
			if !strings.HasSuffix(id, "-") && !strings.Contains(string(page), `id="`+id+`"`) {
				t.Errorf("the page has no %s, which %s looks for", id, name)
			}
		}
	}
}

func TestNamesThatAreNotFiles(t *testing.T) {
	p := new(Page)
	for _, path := range []string{"/nothing", "/..", "/.", "/page", "/%2e%2e%2finspector.go", "/a\x00b", "/inspector.js/x"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%q: got %d", path, w.Code)
		}
	}
}

func TestCheckSource(t *testing.T) {
	for _, source := range []string{
		"*", "http://localhost", "http://localhost:3000", "https://example.com", "https://*.example.com",
		"https://a-b.example.com:8443", "http://127.0.0.1:9000", "https://xn--bcher-kva.example",
	} {
		if err := CheckSource(source); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	for _, source := range []string{
		"", "example.com", "localhost:3000", "https://", "https://example.com/", "https://example.com/x", "https://example.com?",
		"https://example.com#", "https://u@example.com", "ws://example.com", "'self'", "data:", "https://*", "https://a.*.example",
		"https://exa mple.com", "https://example.com;", "https://example.com:", "https://example.com:x", "https://bücher.example",
		"http://[::1]:80", "https://example.com\n", "*.example.com",
	} {
		if err := CheckSource(source); err == nil {
			t.Errorf("%q is taken", source)
		}
	}
}
