package hot

import (
	"context"
	"fmt"
	"slices"

	"github.com/varvelog/varve/internal/base"
)

// Trim is one log's part of a TrimAll: drop what lies in [From, To). New start offsets go into the 'm' rows of the same write.
type Trim struct {
	Log      base.LogID
	From, To base.Offset // From is the hot start before the trim, To the one after it. A batch that reaches To is kept
	Meta     *Meta       // nil: unchanged
}

// TrimAll drops hot ranges in one write that does not wait for the sync. Collect the trims of about a second: each write with
// range deletions makes the next iterator sort all those of the memtable again (1.3 ms per 1,000). A crash may undo it as a whole; so
// it is repeated from the manifest, which is the truth (I5). Ranges of one log must not overlap.
func (s *Store) TrimAll(trims []Trim) error {
	if len(trims) == 0 {
		return nil
	}
	w := s.NewWriteSize(len(trims) * 3 * 2 * (offsetKeyLen + 2))
	for _, t := range trims {
		w.Trim(t)
	}
	if err := s.ApplyNoSync(w); err != nil {
		return fmt.Errorf("trim %d logs: %w", len(trims), err)
	}
	return nil
}

// Drop removes everything of the logs (topic deletion) and returns when that is durable. Neighbouring ids share their range
// deletions.
func (s *Store) Drop(logs []base.LogID) error {
	if len(logs) == 0 {
		return nil
	}
	logs = slices.Compact(slices.Sorted(slices.Values(logs)))
	w := s.NewWrite()
	for i := 0; i < len(logs); {
		j := i + 1
		for j < len(logs) && logs[j] == logs[j-1]+1 {
			j++
		}
		for _, space := range [...]byte{spaceData, spaceIndex, spaceMeta, spaceSealed} {
			w.misuse(w.batch.DeleteRange(logKey(space, logs[i]), afterLog(space, logs[j-1]), nil))
		}
		i = j
	}
	c, err := s.Apply(w)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		return fmt.Errorf("drop %d logs: %w", len(logs), err)
	}
	return nil
}

// Reclaim flushes and compacts, which gives back the space of what was trimmed. Normal operation does not need it: call it when the
// broker is idle, or the disk above its soft limit. It rewrites keys, not batches (0.3 s for 400 MB), and waits while the disk is full.
func (s *Store) Reclaim() error {
	if err := s.Failed(); err != nil {
		return err
	}
	if err := s.use(); err != nil {
		return err
	}
	defer s.lifetime.exit()
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("reclaim: flush: %w", err)
	}
	if err := s.db.Compact(context.Background(), []byte{spaceData}, []byte{spaceSealed + 1}, false); err != nil {
		return fmt.Errorf("reclaim: compact: %w", markCorruption(err))
	}
	return nil
}
