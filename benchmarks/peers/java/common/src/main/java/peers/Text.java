package peers;

/** How many parts a text takes (3GPP TS 23.038, TS 23.040); an escape pair or surrogate pair is never split. */
final class Text {
    private static final byte[] SEPTETS = new byte[0x2100];

    static {
        String one = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡¿§"
            + "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜabcdefghijklmnopqrstuvwxyzäöñüà";
        one.chars().forEach(c -> SEPTETS[c] = 1);
        "\f^{}\\[~]|€".chars().forEach(c -> SEPTETS[c] = 2);
    }

    private Text() {}

    static String encoding(String body) {
        for (int i = 0; i < body.length(); i++) if (septets(body.charAt(i)) == 0) return "ucs2";
        return "gsm7";
    }

    static int segments(String body, String encoding) {
        boolean gsm = encoding.equals("gsm7");
        int total = 0;
        for (int i = 0; i < body.length(); i++) total += gsm ? Math.max(1, septets(body.charAt(i))) : 1;
        if (total <= (gsm ? 160 : 70)) return 1;
        int joined = gsm ? 153 : 67, parts = 1, used = 0;
        for (int i = 0; i < body.length(); i++) {
            int size = 1;
            if (gsm) size = Math.max(1, septets(body.charAt(i)));
            else if (Character.isHighSurrogate(body.charAt(i)) && i + 1 < body.length()) {
                size = 2;
                i++;
            }
            if (used + size > joined) {
                parts++;
                used = 0;
            }
            used += size;
        }
        return parts;
    }

    private static int septets(char c) {
        return c < SEPTETS.length ? SEPTETS[c] : 0;
    }
}
