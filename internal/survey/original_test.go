package survey

import "testing"

func TestReadsOriginalURL(t *testing.T) {
	for config, want := range map[string]bool{
		`{"handler": "reverse_proxy"}`:                                                                            false,
		`{"handler": "reverse_proxy", "transport": {"protocol": "http"}}`:                                         false,
		`{"handler": "reverse_proxy", "transport": {"protocol": "fastcgi"}}`:                                      true,
		`{"handler": "reverse_proxy", "transport": {"protocol": "of a plugin"}}`:                                  true,
		`{"handler": "reverse_proxy", "headers": {"request": {"set": {"X": ["{http.request.orig_uri}"]}}}}`:       true,
		`{"handler": "reverse_proxy", "headers": {"request": {"set": {"X": ["{http.request.uri}"]}}}}`:            false,
		`{"handler": "subroute", "routes": [{"handle": [{"handler": "static_response"}]}]}`:                       false,
		`{"handler": "subroute", "routes": [{"handle": [{"handler": "php"}]}]}`:                                   true,
		`{"handler": "subroute", "routes": [{"match": [{"vars": {"{http.request.orig_uri.path}": ["/a"]}}]}]}`:    true,
		`{"handler": "subroute", "routes": [{"match": [{"expression": "{http.request.orig_uri.query} == ''"}]}]}`: true,
		`{"handler": "file_server"}`: true,
		`{"handler": "templates"}`:   true,
		`nonsense`:                   true,
	} {
		if got := ReadsOriginalURL([]byte(config)); got != want {
			t.Errorf("%s: got %t, want %t", config, got, want)
		}
	}
}
