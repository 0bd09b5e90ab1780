package peers;

import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** The words for a state, SMPP's among them, in any case. */
final class States {
    private static final Map<String, String> KNOWN = new ConcurrentHashMap<>();

    private States() {}

    static String of(String word) {
        String known = KNOWN.get(word);
        return known != null ? known : KNOWN.computeIfAbsent(word, w -> plain(w.toLowerCase(Locale.ROOT)));
    }

    static boolean isFinal(String state) {
        return !state.equals("sent") && !state.equals("queued");
    }

    private static String plain(String word) {
        return switch (word) {
            case "scheduled", "0", "enroute", "1", "acceptd", "accepted", "6" -> "sent";
            case "delivrd", "2" -> "delivered";
            case "3" -> "expired";
            case "deleted", "4", "undeliv", "undeliverable", "5" -> "undelivered";
            case "unknown", "7", "skipped", "9" -> "failed";
            case "rejectd", "8" -> "rejected";
            default -> word;
        };
    }
}
