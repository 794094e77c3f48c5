package hot

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/varvelog/varve/internal/base"
)

// Log is what recovery knows of a log.
type Log struct {
	ID     base.LogID
	Meta   Meta        // zero where the log has no 'm' row
	End    base.Offset // offset after the last stored batch; Meta.End where none is stored
	Sealed []Sealed    // ascending
	Index  []IndexEntry
}

// Logs loads what Open found, in the order of ids. It reads the 'm', 's' and 'i' rows and one key per log: no batch is touched.
//
// NB: End may lie past what was ever acknowledged (an applied write survives a crash without its sync), and, after a damaged
// disk, before it. The caller compares it with Meta.HighWater, the epoch and the replicas; it never trusts Open alone.
func (s *Store) Logs() ([]Log, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.lifetime.exit()
	r := &recovery{db: s.db}
	for _, step := range [...]func() error{r.metas, r.ends, r.sealed, r.index} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("load logs: %w", markCorruption(err))
		}
	}
	return r.logs, nil
}

// recovery collects logs. Every step walks its rows in the order of ids and joins them to the sorted list.
type recovery struct {
	db   *pebble.DB
	logs []Log
}

// scan calls fn for every row of a space, in order.
func (r *recovery) scan(space byte, fn func(key, value []byte) error) error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return err
	}
	return errors.Join(each(it, fn), it.Close())
}

func each(it *pebble.Iterator, fn func(key, value []byte) error) (err error) {
	defer damageOfPanic(&err)
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = fn(it.Key(), v)
		}
		if err != nil {
			return err
		}
	}
	return it.Error()
}

func (r *recovery) metas() error {
	return r.scan(spaceMeta, func(k, v []byte) error {
		id, ok := splitMetaKey(k)
		if !ok {
			return badRow(k, errRowFormat)
		}
		m, err := decodeMeta(v)
		if err != nil {
			return badRow(k, err)
		}
		r.logs = append(r.logs, Log{ID: id, Meta: m, End: m.End})
		return nil
	})
}

// ends goes down from the greatest batch key, log by log, so that one SeekLT per log finds its end as well as the next log that
// has batches, be it one without an 'm' row (a crash before its first).
func (r *recovery) ends() error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceData}, UpperBound: []byte{spaceData + 1}})
	if err != nil {
		return err
	}
	ends := make([]Log, 0, len(r.logs)) // descending
	for ok := it.Last(); ok && err == nil; {
		id, last, valid := splitKey(it.Key(), spaceData)
		if !valid {
			err = badRow(it.Key(), errRowFormat)
			break
		}
		ends = append(ends, Log{ID: id, End: last + 1})
		ok = it.SeekLT(logKey(spaceData, id))
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return err
	}
	merged := make([]Log, 0, max(len(r.logs), len(ends)))
	for _, l := range r.logs {
		for ; len(ends) > 0 && ends[len(ends)-1].ID < l.ID; ends = ends[:len(ends)-1] {
			merged = append(merged, ends[len(ends)-1])
		}
		if len(ends) > 0 && ends[len(ends)-1].ID == l.ID {
			l.End, ends = ends[len(ends)-1].End, ends[:len(ends)-1]
		}
		merged = append(merged, l)
	}
	for ; len(ends) > 0; ends = ends[:len(ends)-1] {
		merged = append(merged, ends[len(ends)-1])
	}
	r.logs = merged
	return nil
}

func (r *recovery) sealed() error {
	return r.join(spaceSealed, func(l *Log, off base.Offset, v []byte) error {
		row, err := decodeSealed(off, v)
		l.Sealed = append(l.Sealed, row)
		return err
	})
}

func (r *recovery) index() error {
	return r.join(spaceIndex, func(l *Log, off base.Offset, v []byte) error {
		e, err := decodeIndexEntry(off, v)
		l.Index = append(l.Index, e)
		return err
	})
}

// join gives every row of an offset space to its log. Rows of a log that has neither checkpoint nor batch are skipped: they say
// nothing about data, and a Drop by id removes them with the rest.
func (r *recovery) join(space byte, add func(*Log, base.Offset, []byte) error) error {
	next := 0
	return r.scan(space, func(k, v []byte) error {
		id, off, ok := splitKey(k, space)
		if !ok {
			return badRow(k, errRowFormat)
		}
		for next < len(r.logs) && r.logs[next].ID < id {
			next++
		}
		if next == len(r.logs) || r.logs[next].ID != id {
			return nil
		}
		if err := add(&r.logs[next], off, v); err != nil {
			return badRow(k, err)
		}
		return nil
	})
}

func badRow(key []byte, err error) error {
	return base.MarkCorruption(fmt.Errorf("row %x: %w", key, err))
}
