package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// codec compresses and decompresses. A piece is a row of zstd frames of at
// most chunkSize bytes of plaintext each, so both sides need little memory.
type codec struct {
	enc *zstd.Encoder
	dec *sync.Pool // *zstd.Decoder
}

func newCodec() (codec, error) {
	// The stored bytes have a checksum and a MAC; one more in each frame finds a fault of the encoder itself.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(maxWorkers),
		zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(chunkSize))
	if err != nil {
		return codec{}, fmt.Errorf("store: compression: %w", err)
	}
	return codec{enc: e, dec: &sync.Pool{}}, nil
}

// decoder returns one that refuses windows larger than a chunk.
func (c codec) decoder() (*zstd.Decoder, error) {
	if d, ok := c.dec.Get().(*zstd.Decoder); ok {
		return d, nil
	}
	// Concurrency 1 decodes in the caller's goroutine and leaves none behind.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(chunkSize))
	if err != nil {
		return nil, fmt.Errorf("store: compression: %w", err)
	}
	return d, nil
}

func (c codec) putDecoder(d *zstd.Decoder) {
	if d.Reset(nil) == nil {
		c.dec.Put(d)
	}
}

// frame appends src to dst as one zstd frame.
func (c codec) frame(dst, src []byte) []byte { return c.enc.EncodeAll(src, dst) }

// rawFrame writes a zstd frame of stored blocks (RFC 8878, 3.1.1): single
// segment, four bytes of content size, blocks of at most 128 KiB.
func rawFrame(w io.Writer, src []byte) error {
	const block = 128 << 10
	head := binary.LittleEndian.AppendUint32(nil, 0xFD2FB528)
	head = append(head, 0xA0)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(src)))
	for {
		n := min(block, len(src))
		h := uint32(n) << 3
		if n == len(src) {
			h |= 1
		}
		if _, err := w.Write(append(head, byte(h), byte(h>>8), byte(h>>16))); err != nil {
			return err
		}
		if _, err := w.Write(src[:n]); err != nil {
			return err
		}
		if head, src = head[:0], src[n:]; len(src) == 0 {
			return nil
		}
	}
}
