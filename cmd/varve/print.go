package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

// table is what --output table shows: cells are printed with fmt.Sprint, nil as "-".
type table struct {
	head []string
	rows [][]any
}

func (t *table) add(cells ...any) { t.rows = append(t.rows, cells) }

// print writes v as JSON or t as a table, as --output says.
func (a *app) print(v any, t table) error {
	if a.output == "json" {
		return a.printJSON(v)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if len(t.head) > 0 {
		_, _ = fmt.Fprintln(w, strings.Join(t.head, "\t"))
	}
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = cell(c)
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// say tells what was done, on the table output only: JSON readers get nothing but JSON.
func (a *app) say(format string, args ...any) {
	if a.output == "table" {
		_, _ = fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// warn tells what to know besides, on standard error.
func (a *app) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, "varve: "+format+"\n", args...)
}

func cell(v any) string {
	switch x := v.(type) {
	case nil:
		return "-"
	case *int64:
		if x == nil {
			return "-"
		}
		return strconv.FormatInt(*x, 10)
	case *bool:
		if x == nil {
			return "-"
		}
		return strconv.FormatBool(*x)
	case []int32:
		s := make([]string, len(x))
		for i, n := range x {
			s[i] = strconv.Itoa(int(n))
		}
		return strings.Join(s, ",")
	case string:
		if x == "" {
			return "-"
		}
		return x
	}
	return fmt.Sprint(v)
}
