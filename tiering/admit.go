package tiering

import (
	"context"
	"log/slog"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// admission is what a round knows of one log before it takes ranges of it.
type admission struct {
	end     base.Offset // where the next range has to begin: the tiered end, then the end of the last range that was taken
	start   base.Offset // log start offset as of the manifest
	refused bool        // nothing of the log can be committed now
	read    bool        // the root was read for this round
}

// admit drops what is tiered already (by a commit whose outcome was unknown, or by a leader before us, whose borders were
// others), what a leader that is none any more offers, and what does not continue its log.
func (t *Tiering) admit(ctx context.Context, ranges []SealedRange) (todo []SealedRange, settled int, err error) {
	logs, err := t.admissions(ctx, ranges)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range ranges {
		a := logs[r.Log]
		if !a.refused && !a.read && r.Base > max(a.end, a.start, r.LogStart) { // is what is known of the log true?
			if err := t.Refresh(ctx, r.Log, r.LeaderEpoch); err != nil {
				return nil, settled, err
			}
			a = t.admission(r)
			a.read = true
			logs[r.Log] = a
		}
		start := max(a.start, r.LogStart)
		switch {
		case r.End <= start: // deleted before it was tiered: nothing of it may be read any more
			t.o.Source.Tiered(r.Log, r.LeaderEpoch, r.End)
			settled++
			a.end = max(a.end, r.End)
		case r.End <= a.end:
			t.o.Source.Tiered(r.Log, r.LeaderEpoch, a.end)
			settled++
		case a.refused:
		case r.Base > max(a.end, start): // what lies between was not deleted: it is on no disk that the bucket could be filled from
			a.refused = true
			t.roots.postpone(r.Log, t.o.Clock.Now().Add(damagedPause))
			t.o.Logger.Error("sealed range does not continue its log", slog.String("partition", r.TP.String()), slog.Int64("base", int64(r.Base)), slog.Int64("end", int64(a.end)))
		default:
			r.Base = max(r.Base, a.end)
			todo = append(todo, r)
			a.end = r.End
		}
	}
	return todo, settled, nil
}

// admissions looks at every log of the ranges, and reads those roots again that leaders before us may have swapped since.
func (t *Tiering) admissions(ctx context.Context, ranges []SealedRange) (map[base.LogID]*admission, error) {
	logs := map[base.LogID]*admission{}
	doubts := map[base.LogID]base.LeaderEpoch{}
	var again []SealedRange
	for _, r := range ranges {
		if logs[r.Log] != nil {
			continue
		}
		logs[r.Log] = t.admission(r)
		if !logs[r.Log].refused && !t.verified(r.Log, r.LeaderEpoch) {
			doubts[r.Log] = r.LeaderEpoch
			again = append(again, r)
		}
	}
	if err := t.refreshMany(ctx, doubts); err != nil {
		return nil, err
	}
	for _, r := range again {
		logs[r.Log] = t.admission(r)
		logs[r.Log].read = true
	}
	return logs, nil
}

// admission looks at the log of a range.
func (t *Tiering) admission(r SealedRange) *admission {
	st, _ := t.roots.get(r.Log)
	return &admission{end: st.root.TieredEnd, start: st.root.Start, refused: st.retryAt.After(t.o.Clock.Now()) || deposed(t.o.Meta.Image(), t.o.BrokerID, r, st)}
}

// deposed reports whether it is known that nothing of a range's leader epoch can be committed any more. The source hears of that
// from the same image, a moment later; until then each round would upload the range once more in vain.
func deposed(img *metadata.Image, self base.BrokerID, r SealedRange, st logState) bool {
	if st.fenced >= r.LeaderEpoch || st.root.Object != "" && st.root.Epoch > r.LeaderEpoch {
		return true
	}
	if img == nil {
		return false
	}
	p, _, ok := img.Log(r.Log)
	return !ok || p.Leader != self || p.LeaderEpoch > r.LeaderEpoch
}
