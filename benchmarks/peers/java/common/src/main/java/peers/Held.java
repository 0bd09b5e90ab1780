package peers;

/** What is held of one message_id. Events stay the bytes they came as: they are not encoded again. */
public final class Held {
    /** The send, until it settles; the first final receipt, when it is read before the send. */
    public byte[] send, fin;
    /** The `sent` receipts by time and event_id; when the first was; the one, mostly this, that tells price or network. */
    public String heard;
    public long sentAt;
    public byte[] teller;
    /** In log time: when `fin` was written, when a receipt is late, when all this may be forgotten. */
    public long finWritten, deadline, until;
    /** What was emitted; remembered, so that a copy of the send or receive is known as one. */
    public boolean settled, received;
    /** Whether it must be stored again. */
    public transient boolean changed;
}
