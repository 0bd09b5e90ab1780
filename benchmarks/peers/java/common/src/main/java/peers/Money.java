package peers;

/** Decimal strings to nanos, exactly. */
final class Money {
    private Money() {}

    static long nanos(String s) {
        if (s == null) return 0;
        long n = 0;
        int decimals = -1;
        for (int i = 0; i < s.length() && decimals < 9; i++) {
            char c = s.charAt(i);
            if (c == '.') decimals = 0;
            else {
                n = n * 10 + c - '0';
                if (decimals >= 0) decimals++;
            }
        }
        for (int i = Math.max(decimals, 0); i < 9; i++) n *= 10;
        return n;
    }
}
