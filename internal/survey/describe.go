package survey

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Caddy drops the JSON of a module when it has loaded it. What is left are the
// module's exported fields.

// maxDescribedDepth bounds how deep a value is looked into.
const maxDescribedDepth = 24

var (
	routeListType = reflect.TypeFor[caddyhttp.RouteList]()
	routesType    = reflect.TypeFor[[]caddyhttp.Route]()

	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
)

// eachRouteList calls f for each list of routes in the exported fields of v, but for
// those within other lists.
func eachRouteList(v reflect.Value, f func(caddyhttp.RouteList)) {
	eachRouteListIn(v, 0, f)
}

func eachRouteListIn(v reflect.Value, depth int, f func(caddyhttp.RouteList)) {
	if !v.IsValid() || depth > maxDescribedDepth {
		return
	}
	switch t := v.Type(); {
	case t == routeListType, t == routesType:
		f(v.Convert(routeListType).Interface().(caddyhttp.RouteList))
		return
	case !holdsConfiguration(t):
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		eachRouteListIn(v.Elem(), depth+1, f)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				eachRouteListIn(v.Field(i), depth+1, f)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			eachRouteListIn(v.Index(i), depth+1, f)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			eachRouteListIn(v.MapIndex(key), depth+1, f)
		}
	default: // has no fields
	}
}

// holdsConfiguration keeps out of what a module has at run time: types of the
// standard library, and servers.
func holdsConfiguration(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "" || strings.Contains(t.PkgPath(), ".") && t != reflect.TypeFor[caddyhttp.Server]()
}

// A printer describes values by their types and exported fields.
type printer struct {
	w *strings.Builder
}

func (p *printer) value(v reflect.Value, depth int) {
	if !v.IsValid() || depth > maxDescribedDepth {
		p.w.WriteString("-;")
		return
	}
	// Nothing else is copied: a module may have state that others write to.
	if v.CanInterface() && v.Kind() == reflect.Struct && v.Type().Implements(textMarshalerType) {
		encoded, _ := v.Interface().(encoding.TextMarshaler).MarshalText()
		fmt.Fprintf(p.w, "%q;", encoded)
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			fmt.Fprintf(p.w, "%s", v.Elem().Type())
		}
		p.value(v.Elem(), depth+1)
	case reflect.Struct:
		p.fields(v, depth)
	case reflect.Slice, reflect.Array:
		p.w.WriteByte('[')
		for i := range v.Len() {
			p.value(v.Index(i), depth+1)
		}
		p.w.WriteString("];")
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		p.w.WriteByte('[')
		for _, key := range keys {
			p.value(key, depth+1)
			p.value(v.MapIndex(key), depth+1)
		}
		p.w.WriteString("];")
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
	case reflect.String:
		fmt.Fprintf(p.w, "%q;", v.String())
	default:
		fmt.Fprintf(p.w, "%v;", v)
	}
}

func (p *printer) fields(v reflect.Value, depth int) {
	t := v.Type()
	fmt.Fprintf(p.w, "%s{", t)
	if holdsConfiguration(t) {
		for i := range v.NumField() {
			if field := t.Field(i); field.IsExported() {
				p.w.WriteString(field.Name + ":")
				p.value(v.Field(i), depth+1)
			}
		}
	}
	p.w.WriteString("};")
}
