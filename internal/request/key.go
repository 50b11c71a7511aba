package request

import (
	"encoding/binary"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// Key names the topic within its pool. Each part is preceded by its length, so
// that no two different requests have one key, and what is absent differs from
// what is empty.
func (req *Shared) Key() string {
	var k keyBuilder
	k.addFlag(req.tls)
	k.addFlag(req.trusted)
	k.add(req.host)
	k.addURL(&req.url)
	if k.addFlag(req.orig != nil); req.orig != nil {
		k.addURL(req.orig)
	}
	k.addValues(req.vars)
	k.addValues(req.vary)
	k.addHeader(req.header)
	k.count(len(req.Learned)) // what is learned and absent differs from what is not learned
	for _, name := range req.Learned {
		k.add(name)
	}
	return string(k.b)
}

type keyBuilder struct{ b []byte }

func (k *keyBuilder) count(n int) {
	k.b = binary.AppendUvarint(k.b, uint64(n))
}

func (k *keyBuilder) addFlag(set bool) {
	if set {
		k.count(1)
	} else {
		k.count(0)
	}
}

func (k *keyBuilder) add(part string) {
	k.count(len(part))
	k.b = append(k.b, part...)
}

func (k *keyBuilder) addURL(u *url.URL) {
	k.add(u.EscapedPath())
	k.add(u.RawQuery)
	k.addFlag(u.ForceQuery)
}

func (k *keyBuilder) addValues(values []namedValue) {
	k.count(len(values))
	for _, v := range values {
		k.add(v.name)
		k.add(v.value)
	}
}

func (k *keyBuilder) addHeader(header http.Header) {
	k.count(len(header))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		k.add(name)
		k.count(len(header[name]))
		for _, value := range header[name] {
			k.add(value)
		}
	}
}
